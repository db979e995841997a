// The adder layer's clipped input gradient on a GPU.
//
// clip(d, -1, 1) is 2 * saturate(d / 2 + 1 / 2) - 1, and saturation to [0, 1] is part of the
// addition that makes its argument. With x' = x / 2 - 1 / 2 and f' = f / 2, a term is an addition
// and a multiply-add. The sum of the gradients, the same for all channels, comes off at the end.
// The error of a difference is about 6e-8, however small it is, and the error of a result that much
// of the sum of its absolute gradients.

#ifndef TFKD_ADDER_NATIVE_CUDA_INPUT_GRADIENT_CUH_
#define TFKD_ADDER_NATIVE_CUDA_INPUT_GRADIENT_CUH_

#include "../geometry.h"
#include "gather.cuh"

namespace tfkd {

// A phase of one axis: the pixels `first`, `first + stride`, ... are seen by the same taps of the
// kernel, `first_tap`, `first_tap + stride`, ..., whose outputs are neighbors.
struct Phase {
  int first, pixels;
  int first_tap, taps;
  int first_output;  // The one that sees the first pixel by the last of these taps.

  __device__ Phase(int phase, int stride, int size, int pad, int kernel) {
    first = phase;
    pixels = size > phase ? (size - phase + stride - 1) / stride : 0;
    first_tap = (phase + pad) % stride;
    taps = kernel > first_tap ? (kernel - first_tap + stride - 1) / stride : 0;
    first_output = (phase + pad - first_tap) / stride - (taps - 1);
  }
};

// input_gradient[p, c] = sum over taps and f of clip(filter[tap, c, f] - input[p, c], -1, 1) *
// gradient[output of p and tap, f]. Every thread gathers, so that the order of sums is fixed.
//
// A block takes pixels of one phase of the strides (blockIdx.z), and only the taps that those have.
// whole_quads: channels and filters are multiples of 4, and all pointers of 16 bytes.
template <typename T, bool whole_quads>
__global__ void __launch_bounds__(T::kThreads)
    InputGradientKernel(Geometry s, const float* input, const float* filter, const float* gradient,
                        float* input_gradient) {
  alignas(16) __shared__ float gradients[2][kDepth][T::kRows + kPad];
  alignas(16) __shared__ float filters[2][kDepth][T::kColumns + kPad];
  const int stride_height = s.stride_height, stride_width = s.stride_width;
  const int phase = blockIdx.z;
  const Phase down(phase / stride_width, stride_height, s.height, s.pad_top, s.kernel_height);
  const Phase right(phase % stride_width, stride_width, s.width, s.pad_left, s.kernel_width);
  const int pixels = static_cast<int>(s.batch) * down.pixels * right.pixels;
  const int first_pixel = static_cast<int>(blockIdx.x) * T::kRows;
  if (first_pixel >= pixels) return;
  const int height = s.height, width = s.width, channels = s.channels;
  const int kernel_width = s.kernel_width;
  // A phase that no tap sees has no terms, nor has a layer without filters: no rows of taps.
  const Taps taps = {right.taps > 0 && s.filters > 0 ? down.taps : 0, right.taps,
                     s.filters > 0 ? static_cast<int>(s.filters) : 1};
  const Images images = {gradient, static_cast<int>(s.output_height),
                         static_cast<int>(s.output_width)};
  const int terms = taps.terms();
  const int first_channel = static_cast<int>(blockIdx.y) * T::kColumns;
  const int thread = threadIdx.x;

  // Neighboring threads bring in neighboring filters of one pixel or channel.
  const int quad = thread % kQuads;
  Place places[T::kRowLoads];
  const auto place_of = [&](int pixel) {
    return PlaceOf(pixel / (down.pixels * right.pixels),
                   pixel / right.pixels % down.pixels + down.first_output,
                   pixel % right.pixels + right.first_output, images, taps.channels);
  };
  FindPlaces<T>(thread, first_pixel, pixels, place_of, places);
  Walk walk = {0, 0, 0};
  walk.Advance(quad * kQuad, taps);

  const auto pixel_at = [&](int row) {  // Its first number, or -1.
    const int pixel = first_pixel + row;
    if (pixel >= pixels) return -1;
    const int image = pixel / (down.pixels * right.pixels);
    const int y = down.first + pixel / right.pixels % down.pixels * stride_height;
    const int x = right.first + pixel % right.pixels * stride_width;
    return ((image * height + y) * width + x) * channels;
  };
  float own[T::kOwnRows][T::kOwnColumns];
#pragma unroll
  for (int i = 0; i < T::kOwnRows; ++i) {
    const int at = pixel_at(RowOf<T>(thread, i));
#pragma unroll
    for (int j = 0; j < T::kOwnColumns; ++j) {
      const int c = first_channel + ColumnOf<T>(thread, j);
      own[i][j] = at >= 0 && c < channels ? 0.5f * input[at + c] - 0.5f : 0.0f;
    }
  }

  float4 next_gradients[T::kRowLoads], next_filters[T::kColumnLoads];
  // Of the numbers that this thread brings in: the sum of gradients of each pixel, and NaN for each
  // channel with a NaN filter, which saturation would hide.
  float totals[T::kRowLoads] = {}, spoiled[T::kColumnLoads] = {};
  const auto load = [&](int) {
#pragma unroll
    for (int i = 0; i < T::kRowLoads; ++i) {
      next_gradients[i] = Gather<whole_quads>(images, places[i], walk, taps);
      totals[i] += (next_gradients[i].x + next_gradients[i].y) +
                   (next_gradients[i].z + next_gradients[i].w);
    }
#pragma unroll
    for (int i = 0; i < T::kColumnLoads; ++i) {
      const int c = first_channel + (thread + i * T::kThreads) / kQuads;
      float values[kQuad] = {};
      Walk at = walk;
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        // Outputs follow one another as their taps do, in the reverse order.
        const int tap = (down.first_tap + (taps.rows - 1 - at.row) * stride_height) * kernel_width +
                        right.first_tap + (taps.columns - 1 - at.column) * stride_width;
        const bool is_there = at.row < taps.rows && c < channels;
        const float* place = filter + (tap * channels + c) * taps.channels + at.channel;
        if (whole_quads) {
          if (is_there) Read(place, values);
          break;
        }
        if (is_there) values[k] = *place;
        at.Advance(1, taps);
      }
#pragma unroll
      for (int k = 0; k < kQuad; ++k) {
        spoiled[i] += values[k] == values[k] ? 0.0f : values[k];
        values[k] *= 0.5f;
      }
      next_filters[i] = float4{values[0], values[1], values[2], values[3]};
    }
    walk.Advance(kDepth, taps);
  };
  const auto store = [&](int side) {
#pragma unroll
    for (int i = 0; i < T::kRowLoads; ++i) {
      const int item = thread + i * T::kThreads;
      if (item < T::kRows * kQuads)
        StoreColumn(next_gradients[i], gradients[side], quad * kQuad, item / kQuads);
    }
#pragma unroll
    for (int i = 0; i < T::kColumnLoads; ++i) {
      const int item = thread + i * T::kThreads;
      if (item < T::kColumns * kQuads)
        StoreColumn(next_filters[i], filters[side], quad * kQuad, item / kQuads);
    }
  };

  float sums[T::kOwnRows][T::kOwnColumns] = {};
  OverTerms(terms, load, store, [&](int side) {
    AddTerms<T>(gradients[side], filters[side], thread,
                [&](float g, float f, int i, int j, float* sum) {
                  *sum = fmaf(__saturatef(f - own[i][j]), g, *sum);
                },
                sums);
  });

#pragma unroll
  for (int i = 0; i < T::kRowLoads; ++i) {
    const int item = thread + i * T::kThreads;
    if (item < T::kRows * kQuads) gradients[0][quad][item / kQuads] = totals[i];
  }
#pragma unroll
  for (int i = 0; i < T::kColumnLoads; ++i) {
    const int item = thread + i * T::kThreads;
    if (item < T::kColumns * kQuads) filters[0][quad][item / kQuads] = spoiled[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < T::kOwnRows; ++i) {
    float total = 0.0f;
    for (int k = 0; k < kQuads; ++k) total += gradients[0][k][RowOf<T>(thread, i)];
#pragma unroll
    for (int j = 0; j < T::kOwnColumns; ++j) {
      float spoil = own[i][j] == own[i][j] || terms == 0 ? 0.0f : own[i][j];
      for (int k = 0; k < kQuads; ++k) spoil += filters[0][k][ColumnOf<T>(thread, j)];
      sums[i][j] = 2.0f * sums[i][j] - total + spoil;
    }
  }
  Write<T, whole_quads>(
      thread,
      [&](int row) -> float* {
        const int at = pixel_at(row);
        return at < 0 ? nullptr : input_gradient + at + first_channel;
      },
      channels - first_channel, sums);
}

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_CUDA_INPUT_GRADIENT_CUH_
