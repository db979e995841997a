// What the op asks of the kernels. No TensorFlow here: they can be built and measured alone.

#ifndef TFKD_ADDER_NATIVE_KERNELS_H_
#define TFKD_ADDER_NATIVE_KERNELS_H_

#include "geometry.h"

namespace tfkd {

// output[image, i, j, f] = -sum over (a, b, c) of |input[image, i*s + a, j*s + b, c] - filter|.
void Forward(const Geometry& sizes, const float* input, const float* filter, float* output,
             int64_t first_image, int64_t end_image);

// input_gradient = sum over the outputs that saw a pixel of clip(filter - input, -1, 1) * gradient.
void InputGradient(const Geometry& sizes, const float* input, const float* filter,
                   const float* gradient, float* input_gradient, int64_t first_image,
                   int64_t end_image);

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_KERNELS_H_
