// The adder layer on a GPU: forward pass and clipped input gradient, tile by tile.
//
// Both sums are matrix products whose product is replaced: a block of 256 threads makes 64 x 64
// results, 4 x 4 a thread, from pieces of both operands in shared memory. No TensorFlow here, and
// nothing of CUDA but its language, so that a test can run the very text on a processor.
//
// The forward pass keeps the absolute difference: on these processors |d| is part of the addition
// that takes it, so that a term is two additions, where max(x, f) would be an instruction of its own
// at half the rate.

#ifndef TFKD_ADDER_NATIVE_CUDA_KERNELS_CUH_
#define TFKD_ADDER_NATIVE_CUDA_KERNELS_CUH_

#include "../geometry.h"

namespace tfkd {

constexpr int kThreads = 256;
constexpr int kSide = 16;                 // Threads in a row of the tile.
constexpr int kOwn = 4;                   // Results of a thread along each side.
constexpr int kTile = kSide * kOwn;       // Results of a block along each side.
constexpr int kDepth = 16;                // Terms that are in shared memory at a time.
constexpr int kLoads = kDepth * kTile / kThreads;

// The images and places that a thread reads for one tile, found once.
struct Places {
  int64_t start[kLoads];  // Where the image of each begins.
  int64_t row[kLoads], column[kLoads];
  bool inside[kLoads];
};

// Splits numbers of pixels, counted through all images, into image, row and column.
__device__ inline void FindPlaces(int64_t first, int64_t step, int64_t count, int64_t rows,
                                  int64_t columns, int64_t image_size, Places* places) {
  for (int i = 0; i < kLoads; ++i) {
    const int64_t pixel = first + i * step;
    places->inside[i] = pixel < count;
    places->start[i] = pixel / (rows * columns) * image_size;
    places->row[i] = pixel / columns % rows;
    places->column[i] = pixel % columns;
  }
}

// output[p, f] = -sum over k of |patch[p, k] - filter[k, f]|. Here and below 16 terms are added up
// first, which keeps the rounding of long sums small.
__global__ void ForwardKernel(Geometry s, const float* input, const float* filter, float* output) {
  __shared__ float patches[kDepth][kTile + 1];
  __shared__ float filters[kDepth][kTile];
  const int64_t pixels = s.batch * s.output_height * s.output_width;
  const int64_t terms = s.kernel_height * s.kernel_width * s.channels;
  const int64_t first_pixel = int64_t{blockIdx.x} * kTile, first_filter = int64_t{blockIdx.y} * kTile;
  const int thread = threadIdx.x, row = thread / kSide, column = thread % kSide;
  const int term = thread % kDepth;  // Neighbouring threads read neighbouring channels.
  Places places;
  FindPlaces(first_pixel + thread / kDepth, kThreads / kDepth, pixels, s.output_height,
             s.output_width, s.height * s.width * s.channels, &places);
  float sums[kOwn][kOwn] = {};
  for (int64_t from = 0; from < terms; from += kDepth) {
    const int64_t k = from + term;
    const int64_t channel = k % s.channels, tap = k / s.channels;
    for (int i = 0; i < kLoads; ++i) {
      const int64_t y = places.row[i] * s.stride_height + tap / s.kernel_width - s.pad_top;
      const int64_t x = places.column[i] * s.stride_width + tap % s.kernel_width - s.pad_left;
      const bool is_there = places.inside[i] && k < terms && y >= 0 && y < s.height && x >= 0 &&
                            x < s.width;
      patches[term][thread / kDepth + i * (kThreads / kDepth)] =
          is_there ? input[places.start[i] + (y * s.width + x) * s.channels + channel] : 0.0f;
      const int of_tile = thread / kTile + i * (kThreads / kTile);
      const int64_t f = first_filter + thread % kTile;
      // Terms past the last are 0 on both sides, and add nothing.
      filters[of_tile][thread % kTile] =
          from + of_tile < terms && f < s.filters ? filter[(from + of_tile) * s.filters + f] : 0.0f;
    }
    __syncthreads();
    float block[kOwn][kOwn] = {};
    for (int d = 0; d < kDepth; ++d)
      for (int i = 0; i < kOwn; ++i)
        for (int j = 0; j < kOwn; ++j)
          block[i][j] += fabsf(patches[d][row + i * kSide] - filters[d][column + j * kSide]);
    for (int i = 0; i < kOwn; ++i)
      for (int j = 0; j < kOwn; ++j) sums[i][j] += block[i][j];
    __syncthreads();
  }
  for (int i = 0; i < kOwn; ++i)
    for (int j = 0; j < kOwn; ++j) {
      const int64_t pixel = first_pixel + row + i * kSide, f = first_filter + column + j * kSide;
      if (pixel < pixels && f < s.filters) output[pixel * s.filters + f] = -sums[i][j];
    }
}

// input_gradient[p, c] = sum over taps and f of clip(filter[tap, c, f] - input[p, c], -1, 1) *
// gradient[output of p and tap, f]. Every thread gathers, so that the order of sums is fixed.
__global__ void InputGradientKernel(Geometry s, const float* input, const float* filter,
                                    const float* gradient, float* input_gradient) {
  __shared__ float gradients[kDepth][kTile + 1];
  __shared__ float filters[kDepth][kTile + 1];
  const int64_t pixels = s.batch * s.height * s.width;
  const int64_t first_pixel = int64_t{blockIdx.x} * kTile;
  const int64_t first_channel = int64_t{blockIdx.y} * kTile;
  const int thread = threadIdx.x, row = thread / kSide, column = thread % kSide;
  const int term = thread % kDepth;  // Neighbouring threads read neighbouring filters.
  Places places;
  FindPlaces(first_pixel + thread / kDepth, kThreads / kDepth, pixels, s.height, s.width,
             s.output_height * s.output_width * s.filters, &places);
  float own[kOwn][kOwn], sums[kOwn][kOwn] = {};
  for (int i = 0; i < kOwn; ++i)
    for (int j = 0; j < kOwn; ++j) {
      const int64_t pixel = first_pixel + row + i * kSide, c = first_channel + column + j * kSide;
      own[i][j] = pixel < pixels && c < s.channels ? input[pixel * s.channels + c] : 0.0f;
    }
  for (int64_t tap = 0; tap < s.kernel_height * s.kernel_width; ++tap) {
    // The outputs whose patches have these pixels under the tap, where there are such.
    int64_t outputs[kLoads];
    bool is_there[kLoads];
    for (int i = 0; i < kLoads; ++i) {
      const int64_t down = places.row[i] + s.pad_top - tap / s.kernel_width;
      const int64_t right = places.column[i] + s.pad_left - tap % s.kernel_width;
      const int64_t y = down / s.stride_height, x = right / s.stride_width;
      is_there[i] = places.inside[i] && down >= 0 && right >= 0 && down % s.stride_height == 0 &&
                    right % s.stride_width == 0 && y < s.output_height && x < s.output_width;
      outputs[i] = places.start[i] + (y * s.output_width + x) * s.filters;
    }
    for (int64_t from = 0; from < s.filters; from += kDepth) {
      const int64_t f = from + term;
      for (int i = 0; i < kLoads; ++i) {
        const int of_tile = thread / kDepth + i * (kThreads / kDepth);
        // 0 where there is none, which leaves the sum as it is.
        gradients[term][of_tile] = is_there[i] && f < s.filters ? gradient[outputs[i] + f] : 0.0f;
        const int64_t c = first_channel + of_tile;
        filters[term][of_tile] = c < s.channels && f < s.filters
                                     ? filter[(tap * s.channels + c) * s.filters + f]
                                     : 0.0f;
      }
      __syncthreads();
      float block[kOwn][kOwn] = {};
      for (int d = 0; d < kDepth; ++d)
        for (int i = 0; i < kOwn; ++i)
          for (int j = 0; j < kOwn; ++j) {
            const float difference = filters[d][column + j * kSide] - own[i][j];
            // Written so that NaN stays NaN.
            const float clipped =
                difference > 1.0f ? 1.0f : (difference < -1.0f ? -1.0f : difference);
            block[i][j] += clipped * gradients[d][row + i * kSide];
          }
      for (int i = 0; i < kOwn; ++i)
        for (int j = 0; j < kOwn; ++j) sums[i][j] += block[i][j];
      __syncthreads();
    }
  }
  for (int i = 0; i < kOwn; ++i)
    for (int j = 0; j < kOwn; ++j) {
      const int64_t pixel = first_pixel + row + i * kSide, c = first_channel + column + j * kSide;
      if (pixel < pixels && c < s.channels) input_gradient[pixel * s.channels + c] = sums[i][j];
    }
}

// Tiles along one side.
inline unsigned Tiles(int64_t count) { return static_cast<unsigned>((count + kTile - 1) / kTile); }

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_CUDA_KERNELS_CUH_
