// The ops of the adder layer on a GPU: TensorFlow's tensors and stream for the launcher.

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
using tensorflow::Tensor;

cudaStream_t StreamOf(OpKernelContext* context) {
  return context->eigen_device<Eigen::GpuDevice>().stream();
}

absl::Status Started(int code) {
  if (code == cudaSuccess) return absl::OkStatus();
  return tensorflow::errors::Internal("adder layer on a GPU: found CUDA error ", code,
                                      ", wanted a kernel that starts");
}

class ForwardOp : public AdderOp {
 public:
  using AdderOp::AdderOp;

  void Compute(OpKernelContext* context) override {
    const Tensor& x = context->input(0);
    const Tensor& filter = context->input(1);
    Geometry s;
    OP_REQUIRES_OK(context, Sizes(x, filter, &s));
    Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, OutputShape(s), &y));
    OP_REQUIRES_OK(context, Started(tfkd_adder_cuda_forward(
                                &s, x.flat<float>().data(), filter.flat<float>().data(),
                                y->flat<float>().data(), StreamOf(context))));
  }
};

class InputGradientOp : public AdderOp {
 public:
  using AdderOp::AdderOp;

  void Compute(OpKernelContext* context) override {
    const Tensor& x = context->input(0);
    const Tensor& filter = context->input(1);
    const Tensor& gradient = context->input(2);
    Geometry s;
    OP_REQUIRES_OK(context, Sizes(x, filter, &s));
    OP_REQUIRES_OK(context, CheckGradient(s, gradient));
    Tensor* x_gradient = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &x_gradient));
    OP_REQUIRES_OK(context,
                   Started(tfkd_adder_cuda_input_gradient(
                       &s, x.flat<float>().data(), filter.flat<float>().data(),
                       gradient.flat<float>().data(), x_gradient->flat<float>().data(),
                       StreamOf(context))));
  }
};

REGISTER_KERNEL_BUILDER(Name("TfkdAdderConv2D").Device(tensorflow::DEVICE_GPU), ForwardOp);
REGISTER_KERNEL_BUILDER(Name("TfkdAdderConv2DInputGrad").Device(tensorflow::DEVICE_GPU),
                        InputGradientOp);

}  // namespace
}  // namespace tfkd
