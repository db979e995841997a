// Gathers the patches of a convolution from images, without ever writing them out.

#ifndef TFKD_ADDER_NATIVE_CUDA_GATHER_CUH_
#define TFKD_ADDER_NATIVE_CUDA_GATHER_CUH_

#include "tile.cuh"

namespace tfkd {

// The sums of one pixel go over taps, row by row, and over the channels of each.
struct Taps {
  int rows, columns, channels;

  __device__ int terms() const { return rows * columns * channels; }
};

// The tap and channel of a term; moves on without a division.
struct Walk {
  int row, column, channel;

  __device__ void Advance(int terms, const Taps& taps) {
    channel += terms;
    while (channel >= taps.channels) {
      channel -= taps.channels;
      if (++column == taps.columns) {
        column = 0;
        ++row;
      }
    }
  }
};

// The images that are gathered from, NHWC, and their sizes.
struct Images {
  const float* data;
  int rows, columns;
};

// The place of a pixel's first tap, which may be outside the image.
struct Place {
  int start, row, column;
};

// The row of a pixel that does not exist: none of its taps is inside.
constexpr int kNowhere = -(1 << 30);

__device__ inline Place PlaceOf(int image, int row, int column, const Images& images,
                                int channels) {
  return {((image * images.rows + row) * images.columns + column) * channels, row, column};
}

// Finds the places of the pixels that a thread brings in: place_of(pixel) for those that exist.
template <typename T, typename PlaceOfPixel>
__device__ inline void FindPlaces(int thread, int first_pixel, int pixels,
                                  const PlaceOfPixel& place_of, Place (&places)[T::kRowLoads]) {
#pragma unroll
  for (int i = 0; i < T::kRowLoads; ++i) {
    const int pixel = first_pixel + (thread + i * T::kThreads) / kQuads;
    places[i] = pixel < pixels ? place_of(pixel) : Place{0, kNowhere, 0};
  }
}

// Returns four terms of a pixel from `walk` on, 0 where there are none.
template <bool whole_quads>
__device__ inline float4 Gather(const Images& images, const Place& place, Walk walk,
                                const Taps& taps) {
  if constexpr (whole_quads) {  // The four are channels of one tap.
    const int row = place.row + walk.row, column = place.column + walk.column;
    const bool inside = walk.row < taps.rows && row >= 0 && row < images.rows && column >= 0 &&
                        column < images.columns;
    if (!inside) return float4{0.0f, 0.0f, 0.0f, 0.0f};
    return *reinterpret_cast<const float4*>(
        images.data + place.start +
        (walk.row * images.columns + walk.column) * taps.channels + walk.channel);
  } else {
    float values[kQuad];
#pragma unroll
    for (int k = 0; k < kQuad; ++k) {
      const int row = place.row + walk.row, column = place.column + walk.column;
      const bool inside = walk.row < taps.rows && row >= 0 && row < images.rows && column >= 0 &&
                          column < images.columns;
      values[k] = inside ? images.data[place.start +
                                       (walk.row * images.columns + walk.column) * taps.channels +
                                       walk.channel]
                         : 0.0f;
      walk.Advance(1, taps);
    }
    return float4{values[0], values[1], values[2], values[3]};
  }
}

// Stores four terms of a pixel or channel in one column of shared memory.
template <int width>
__device__ inline void StoreColumn(const float4& quad, float (&memory)[kDepth][width],
                                   int first_term, int place) {
  memory[first_term][place] = quad.x;
  memory[first_term + 1][place] = quad.y;
  memory[first_term + 2][place] = quad.z;
  memory[first_term + 3][place] = quad.w;
}

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_CUDA_GATHER_CUH_
