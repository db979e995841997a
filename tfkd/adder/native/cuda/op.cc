// The ops of the adder layer on a GPU: TensorFlow's stream for the launcher.

#define EIGEN_USE_GPU

#include "../checked_op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "unsupported/Eigen/CXX11/Tensor"

extern "C" {

int tfkd_adder_cuda_forward(const tfkd::Geometry* sizes, const float* input, const float* filter,
                            float* output, cudaStream_t stream);
int tfkd_adder_cuda_input_gradient(const tfkd::Geometry* sizes, const float* input,
                                   const float* filter, const float* gradient,
                                   float* input_gradient, cudaStream_t stream);

}  // extern "C"

namespace tfkd {
namespace {

using tensorflow::OpKernelContext;

cudaStream_t StreamOf(OpKernelContext* context) {
  return context->eigen_device<Eigen::GpuDevice>().stream();
}

absl::Status Started(int code) {
  if (code == cudaSuccess) return absl::OkStatus();
  return tensorflow::errors::Internal("adder layer on a GPU: found CUDA error ", code,
                                      ", wanted a kernel that starts");
}

struct Gpu {
  static absl::Status Forward(OpKernelContext* context, const Geometry& sizes, const float* x,
                              const float* filter, float* y) {
    return Started(tfkd_adder_cuda_forward(&sizes, x, filter, y, StreamOf(context)));
  }

  static absl::Status InputGradient(OpKernelContext* context, const Geometry& sizes, const float* x,
                                    const float* filter, const float* gradient, float* result) {
    return Started(
        tfkd_adder_cuda_input_gradient(&sizes, x, filter, gradient, result, StreamOf(context)));
  }
};

REGISTER_KERNEL_BUILDER(Name("TfkdAdderConv2D").Device(tensorflow::DEVICE_GPU), ForwardOp<Gpu>);
REGISTER_KERNEL_BUILDER(Name("TfkdAdderConv2DInputGrad").Device(tensorflow::DEVICE_GPU),
                        InputGradientOp<Gpu>);

}  // namespace
}  // namespace tfkd
