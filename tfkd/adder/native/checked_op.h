// The ops without their device: attributes, checks of the inputs, and outputs.

#ifndef TFKD_ADDER_NATIVE_CHECKED_OP_H_
#define TFKD_ADDER_NATIVE_CHECKED_OP_H_

#include <vector>

#include "geometry.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace tfkd {

using tensorflow::errors::InvalidArgument;

inline absl::Status CheckAttributes(const std::vector<int64_t>& strides,
                                    const std::vector<int64_t>& padding) {
  if (strides.size() != 2 || strides[0] < 1 || strides[1] < 1)
    return InvalidArgument("strides: wanted two of at least 1, (height, width)");
  if (padding.size() != 4) return InvalidArgument("padding: wanted (top, bottom, left, right)");
  for (int64_t each : padding)
    if (each < 0) return InvalidArgument("padding: found ", each, ", wanted at least 0");
  return absl::OkStatus();
}

// The base of both ops: attributes, and the sizes that follow from them and the inputs.
class AdderOp : public tensorflow::OpKernel {
 public:
  explicit AdderOp(tensorflow::OpKernelConstruction* context) : tensorflow::OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("strides", &strides_));
    OP_REQUIRES_OK(context, context->GetAttr("padding", &padding_));
    OP_REQUIRES_OK(context, CheckAttributes(strides_, padding_));
  }

 protected:
  absl::Status Sizes(const tensorflow::Tensor& x, const tensorflow::Tensor& filter,
                     Geometry* sizes) const {
    if (x.dims() != 4 || filter.dims() != 4 || x.dim_size(3) != filter.dim_size(2))
      return InvalidArgument("x of shape ", x.shape().DebugString(), " and filter of shape ",
                             filter.shape().DebugString(),
                             ": wanted NHWC and HWIO of the same channels");
    Geometry& s = *sizes;
    s.batch = x.dim_size(0);
    s.height = x.dim_size(1);
    s.width = x.dim_size(2);
    s.channels = x.dim_size(3);
    s.kernel_height = filter.dim_size(0);
    s.kernel_width = filter.dim_size(1);
    s.filters = filter.dim_size(3);
    s.stride_height = strides_[0];
    s.stride_width = strides_[1];
    s.pad_top = padding_[0];
    s.pad_left = padding_[2];
    const int64_t height = s.height + padding_[0] + padding_[1];
    const int64_t width = s.width + padding_[2] + padding_[3];
    if (s.kernel_height < 1 || s.kernel_width < 1 || s.kernel_height > height ||
        s.kernel_width > width)
      return InvalidArgument("filter of shape ", filter.shape().DebugString(),
                             " on padded images of size ", height, "x", width,
                             ": wanted one that fits");
    s.output_height = (height - s.kernel_height) / s.stride_height + 1;
    s.output_width = (width - s.kernel_width) / s.stride_width + 1;
    return absl::OkStatus();
  }

  static tensorflow::TensorShape OutputShape(const Geometry& s) {
    return tensorflow::TensorShape({s.batch, s.output_height, s.output_width, s.filters});
  }

 private:
  std::vector<int64_t> strides_, padding_;
};

// TfkdAdderConv2D on a device, whose Forward(context, sizes, input, filter, output) does the work.
template <typename Device>
class ForwardOp : public AdderOp {
 public:
  using AdderOp::AdderOp;

  void Compute(tensorflow::OpKernelContext* context) override {
    const tensorflow::Tensor& x = context->input(0);
    const tensorflow::Tensor& filter = context->input(1);
    Geometry s;
    OP_REQUIRES_OK(context, Sizes(x, filter, &s));
    tensorflow::Tensor* y = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, OutputShape(s), &y));
    OP_REQUIRES_OK(context, Device::Forward(context, s, x.flat<float>().data(),
                                            filter.flat<float>().data(), y->flat<float>().data()));
  }
};

// TfkdAdderConv2DInputGrad likewise, whose InputGradient(context, sizes, input, filter, gradient,
// result) does the work.
template <typename Device>
class InputGradientOp : public AdderOp {
 public:
  using AdderOp::AdderOp;

  void Compute(tensorflow::OpKernelContext* context) override {
    const tensorflow::Tensor& x = context->input(0);
    const tensorflow::Tensor& filter = context->input(1);
    const tensorflow::Tensor& gradient = context->input(2);
    Geometry s;
    OP_REQUIRES_OK(context, Sizes(x, filter, &s));
    const tensorflow::TensorShape wanted = OutputShape(s);
    OP_REQUIRES(context, gradient.shape() == wanted,
                InvalidArgument("gradient: found shape ", gradient.shape().DebugString(),
                                ", wanted that of the output, ", wanted.DebugString()));
    tensorflow::Tensor* x_gradient = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &x_gradient));
    OP_REQUIRES_OK(context,
                   Device::InputGradient(context, s, x.flat<float>().data(),
                                         filter.flat<float>().data(), gradient.flat<float>().data(),
                                         x_gradient->flat<float>().data()));
  }
};

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_CHECKED_OP_H_
