#include "kernels.h"

#include <algorithm>
#include <cmath>

namespace tfkd {

void Forward(const Geometry& s, const float* input, const float* filter, float* output,
             int64_t first_image, int64_t end_image) {
  for (int64_t image = first_image; image < end_image; ++image)
    for (int64_t i = 0; i < s.output_height; ++i)
      for (int64_t j = 0; j < s.output_width; ++j) {
        float* out =
            output + ((image * s.output_height + i) * s.output_width + j) * s.filters;
        std::fill(out, out + s.filters, 0.0f);
        const float* weights = filter;
        for (int64_t a = 0; a < s.kernel_height; ++a)
          for (int64_t b = 0; b < s.kernel_width; ++b) {
            const int64_t h = i * s.stride_height + a - s.pad_top;
            const int64_t w = j * s.stride_width + b - s.pad_left;
            const bool inside = h >= 0 && h < s.height && w >= 0 && w < s.width;
            const float* pixel = input + ((image * s.height + h) * s.width + w) * s.channels;
            for (int64_t c = 0; c < s.channels; ++c, weights += s.filters) {
              const float x = inside ? pixel[c] : 0.0f;
              for (int64_t f = 0; f < s.filters; ++f) out[f] -= std::fabs(x - weights[f]);
            }
          }
      }
}

void InputGradient(const Geometry& s, const float* input, const float* filter,
                   const float* gradient, float* input_gradient, int64_t first_image,
                   int64_t end_image) {
  const int64_t size = s.height * s.width * s.channels;
  std::fill(input_gradient + first_image * size, input_gradient + end_image * size, 0.0f);
  for (int64_t image = first_image; image < end_image; ++image)
    for (int64_t i = 0; i < s.output_height; ++i)
      for (int64_t j = 0; j < s.output_width; ++j) {
        const float* g =
            gradient + ((image * s.output_height + i) * s.output_width + j) * s.filters;
        for (int64_t a = 0; a < s.kernel_height; ++a)
          for (int64_t b = 0; b < s.kernel_width; ++b) {
            const int64_t h = i * s.stride_height + a - s.pad_top;
            const int64_t w = j * s.stride_width + b - s.pad_left;
            if (h < 0 || h >= s.height || w < 0 || w >= s.width) continue;
            const int64_t pixel = ((image * s.height + h) * s.width + w) * s.channels;
            const float* weights = filter + (a * s.kernel_width + b) * s.channels * s.filters;
            for (int64_t c = 0; c < s.channels; ++c, weights += s.filters) {
              const float x = input[pixel + c];
              float sum = 0.0f;
              for (int64_t f = 0; f < s.filters; ++f)
                sum += std::min(1.0f, std::max(-1.0f, weights[f] - x)) * g[f];
              input_gradient[pixel + c] += sum;
            }
          }
      }
}

}  // namespace tfkd
