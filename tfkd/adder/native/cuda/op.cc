// The adder ops on a GPU: call the launcher with TensorFlow's stream.

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

absl::Status Started(int code, const Geometry& s) {
  if (code == cudaSuccess) return absl::OkStatus();
  if (code == cudaErrorInvalidValue || code == cudaErrorInvalidConfiguration)
    return InvalidArgument("adder layer on a GPU: found images of ", s.height, "x", s.width, "x",
                           s.channels, ", a kernel of ", s.kernel_height, "x", s.kernel_width,
                           ", ", s.filters, " filters and strides of ", s.stride_height, "x",
                           s.stride_width, ", wanted at most 2^30 numbers in an image, in its ",
                           "outputs and in the filters, at most 65535 tiles of channels or ",
                           "filters, ",
                           "and strides whose product is at most 65535");
  return tensorflow::errors::Internal("adder layer on a GPU: found CUDA error ", code,
                                      ", wanted a kernel that starts");
}

struct Gpu {
  static absl::Status Forward(OpKernelContext* context, const Geometry& sizes, const float* x,
                              const float* filter, float* y) {
    return Started(tfkd_adder_cuda_forward(&sizes, x, filter, y, StreamOf(context)), sizes);
  }

  static absl::Status InputGradient(OpKernelContext* context, const Geometry& sizes, const float* x,
                                    const float* filter, const float* gradient, float* result) {
    return Started(tfkd_adder_cuda_input_gradient(&sizes, x, filter, gradient, result,
                                                  StreamOf(context)),
                   sizes);
  }
};

REGISTER_KERNEL_BUILDER(Name("TfkdAdderConv2D").Device(tensorflow::DEVICE_GPU), ForwardOp<Gpu>);
REGISTER_KERNEL_BUILDER(Name("TfkdAdderConv2DInputGrad").Device(tensorflow::DEVICE_GPU),
                        InputGradientOp<Gpu>);

}  // namespace
}  // namespace tfkd
