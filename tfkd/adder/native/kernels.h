// The kernels as the op calls them. No TensorFlow here: they can be built and measured alone.

#ifndef TFKD_ADDER_NATIVE_KERNELS_H_
#define TFKD_ADDER_NATIVE_KERNELS_H_

#include <functional>

#include "geometry.h"

namespace tfkd {

// Calls work(first, end) for ranges that together are [0, total), on one or several threads. `cost`
// is the multiply-adds of one element. Results do not depend on how the range is cut.
using Parallel = std::function<void(int64_t total, int64_t cost,
                                    const std::function<void(int64_t first, int64_t end)>& work)>;

// output[image, i, j, f] = -sum over (a, b, c) of
//     |input[image, i * stride + a - pad, j * stride + b - pad, c] - filter[a, b, c, f]|.
void Forward(const Geometry& sizes, const float* input, const float* filter, float* output,
             const Parallel& parallel);

// input_gradient[image, h, w, c] = sum over the (i, j, f) whose patch holds the pixel of
//     clip(filter[a, b, c, f] - input[image, h, w, c], -1, 1) * gradient[image, i, j, f].
void InputGradient(const Geometry& sizes, const float* input, const float* filter,
                   const float* gradient, float* input_gradient, const Parallel& parallel);

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_KERNELS_H_
