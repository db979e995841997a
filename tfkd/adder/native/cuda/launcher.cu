// What a GPU library offers: the kernels behind functions of C, on pointers of the device.
//
// Each returns CUDA's error code, 0 where the kernel was started; results are there when the stream
// is done.

#include "kernels.cuh"

namespace {

// A grid has room for this many tiles of the second side.
constexpr int64_t kMostTiles = 65535;

template <typename Start>
int Launch(int64_t pixels, int64_t others, const Start& start) {
  if (pixels == 0 || others == 0) return cudaSuccess;
  if (tfkd::Tiles(others) > kMostTiles) return cudaErrorInvalidConfiguration;
  start(dim3(tfkd::Tiles(pixels), tfkd::Tiles(others)));
  return cudaGetLastError();
}

}  // namespace

extern "C" {

int tfkd_adder_cuda_forward(const tfkd::Geometry* sizes, const float* input, const float* filter,
                            float* output, cudaStream_t stream) {
  const tfkd::Geometry s = *sizes;
  return Launch(s.batch * s.output_height * s.output_width, s.filters, [&](dim3 grid) {
    tfkd::ForwardKernel<<<grid, tfkd::kThreads, 0, stream>>>(s, input, filter, output);
  });
}

int tfkd_adder_cuda_input_gradient(const tfkd::Geometry* sizes, const float* input,
                                   const float* filter, const float* gradient,
                                   float* input_gradient, cudaStream_t stream) {
  const tfkd::Geometry s = *sizes;
  return Launch(s.batch * s.height * s.width, s.channels, [&](dim3 grid) {
    tfkd::InputGradientKernel<<<grid, tfkd::kThreads, 0, stream>>>(s, input, filter, gradient,
                                                                   input_gradient);
  });
}

}  // extern "C"
