// The sizes of one adder layer, known to the kernels and to the op alike.

#ifndef TFKD_ADDER_NATIVE_GEOMETRY_H_
#define TFKD_ADDER_NATIVE_GEOMETRY_H_

#include <cstdint>

namespace tfkd {

// Input NHWC, filter HWIO, output NHWC. Zeros are added around the input, and
// output_size = (size + both pads - kernel) / stride + 1.
struct Geometry {
  int64_t batch, height, width, channels;
  int64_t kernel_height, kernel_width, filters;
  int64_t stride_height, stride_width;
  int64_t pad_top, pad_left;
  int64_t output_height, output_width;
};

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_GEOMETRY_H_
