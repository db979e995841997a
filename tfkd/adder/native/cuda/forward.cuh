// The adder layer's forward pass on a GPU.
//
// Unlike the CPU it computes absolute differences: on a GPU |d| is part of the addition that reads
// it, so a term is two additions, where max(x, f) would be an instruction at half the rate.

#ifndef TFKD_ADDER_NATIVE_CUDA_FORWARD_CUH_
#define TFKD_ADDER_NATIVE_CUDA_FORWARD_CUH_

#include "../geometry.h"
#include "gather.cuh"

namespace tfkd {

// output[p, f] = -sum over k of |patch[p, k] - filter[k, f]|.
//
// whole_quads: channels and filters are multiples of 4, and all pointers of 16 bytes.
template <typename T, bool whole_quads>
__global__ void __launch_bounds__(T::kThreads)
    ForwardKernel(Geometry s, const float* input, const float* filter, float* output) {
  alignas(16) __shared__ float patches[2][kDepth][T::kRows + kPad];
  alignas(16) __shared__ float filters[2][kDepth][T::kColumns + kPad];
  const int output_height = s.output_height, output_width = s.output_width;
  const int pixels = static_cast<int>(s.batch) * output_height * output_width;
  const int all_filters = s.filters;
  // A layer without channels has no terms: no rows of taps.
  const Taps taps = {s.channels > 0 ? static_cast<int>(s.kernel_height) : 0,
                     static_cast<int>(s.kernel_width),
                     s.channels > 0 ? static_cast<int>(s.channels) : 1};
  const Images images = {input, static_cast<int>(s.height), static_cast<int>(s.width)};
  const int terms = taps.terms();
  const int first_pixel = static_cast<int>(blockIdx.x) * T::kRows;
  const int first_filter = static_cast<int>(blockIdx.y) * T::kColumns;
  const int thread = threadIdx.x;

  // Neighboring threads bring in neighboring channels.
  const int quad = thread % kQuads;
  Place places[T::kRowLoads];
  const auto place_of = [&](int pixel) {
    return PlaceOf(pixel / (output_height * output_width),
                   pixel / output_width % output_height * static_cast<int>(s.stride_height) -
                       static_cast<int>(s.pad_top),
                   pixel % output_width * static_cast<int>(s.stride_width) -
                       static_cast<int>(s.pad_left),
                   images, taps.channels);
  };
  FindPlaces<T>(thread, first_pixel, pixels, place_of, places);
  Walk walk = {0, 0, 0};
  walk.Advance(quad * kQuad, taps);

  float4 next_patches[T::kRowLoads], next_filters[T::kColumnLoads];
  const auto load = [&](int from) {
#pragma unroll
    for (int i = 0; i < T::kRowLoads; ++i)
      next_patches[i] = Gather<whole_quads>(images, places[i], walk, taps);
    walk.Advance(kDepth, taps);
#pragma unroll
    for (int i = 0; i < T::kColumnLoads; ++i) {
      const int item = thread + i * T::kThreads;
      const int term = from + item / (T::kColumns / kQuad);
      const int f = first_filter + item % (T::kColumns / kQuad) * kQuad;
      const float* at = filter + term * all_filters + f;
      float values[kQuad] = {};
      // Terms past the last one are 0 on both sides and add nothing.
      if (term < terms) {
        if (whole_quads) {
          if (f < all_filters) Read(at, values);
        } else {
#pragma unroll
          for (int k = 0; k < kQuad; ++k) values[k] = f + k < all_filters ? at[k] : 0.0f;
        }
      }
      next_filters[i] = float4{values[0], values[1], values[2], values[3]};
    }
  };
  const auto store = [&](int side) {
#pragma unroll
    for (int i = 0; i < T::kRowLoads; ++i) {
      const int item = thread + i * T::kThreads;
      if (item < T::kRows * kQuads)
        StoreColumn(next_patches[i], patches[side], quad * kQuad, item / kQuads);
    }
#pragma unroll
    for (int i = 0; i < T::kColumnLoads; ++i) {
      const int item = thread + i * T::kThreads;
      if (item < T::kColumns * kQuads)
        *reinterpret_cast<float4*>(&filters[side][item / (T::kColumns / kQuad)]
                                           [item % (T::kColumns / kQuad) * kQuad]) =
            next_filters[i];
    }
  };

  float sums[T::kOwnRows][T::kOwnColumns] = {};
  OverTerms(terms, load, store, [&](int side) {
    AddTerms<T>(patches[side], filters[side], thread,
                [](float x, float f, int, int, float* sum) { *sum += fabsf(x - f); }, sums);
  });
#pragma unroll
  for (int i = 0; i < T::kOwnRows; ++i)
#pragma unroll
    for (int j = 0; j < T::kOwnColumns; ++j) sums[i][j] = -sums[i][j];
  Write<T, whole_quads>(
      thread,
      [&](int row) {
        const int pixel = first_pixel + row;
        return pixel < pixels ? output + pixel * all_filters + first_filter : nullptr;
      },
      all_filters - first_filter, sums);
}

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_CUDA_FORWARD_CUH_
