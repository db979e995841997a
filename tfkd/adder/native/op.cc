// The adder layer as TensorFlow ops: shapes and threads; the arithmetic is in the kernels.

#include <vector>

#include "checked_op.h"
#include "geometry.h"
#include "kernels.h"
#include "simd_dispatch.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/util/work_sharder.h"

namespace tfkd {
namespace {

using tensorflow::OpKernelContext;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

absl::Status OutputSize(InferenceContext* c, DimensionHandle size, DimensionHandle kernel,
                        int64_t stride, int64_t padding, DimensionHandle* output) {
  if (!c->ValueKnown(size) || !c->ValueKnown(kernel)) {
    *output = c->UnknownDim();
    return absl::OkStatus();
  }
  const int64_t room = c->Value(size) + padding - c->Value(kernel);
  if (room < 0)
    return InvalidArgument("kernel of size ", c->Value(kernel), " on a padded input of size ",
                           c->Value(size) + padding, ", wanted one that fits");
  *output = c->MakeDim(room / stride + 1);
  return absl::OkStatus();
}

absl::Status ForwardShape(InferenceContext* c) {
  std::vector<int64_t> strides, padding;
  TF_RETURN_IF_ERROR(c->GetAttr("strides", &strides));
  TF_RETURN_IF_ERROR(c->GetAttr("padding", &padding));
  TF_RETURN_IF_ERROR(CheckAttributes(strides, padding));
  ShapeHandle x, filter;
  DimensionHandle channels, height, width;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &x));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &filter));
  TF_RETURN_IF_ERROR(c->Merge(c->Dim(x, 3), c->Dim(filter, 2), &channels));
  TF_RETURN_IF_ERROR(OutputSize(c, c->Dim(x, 1), c->Dim(filter, 0), strides[0],
                                padding[0] + padding[1], &height));
  TF_RETURN_IF_ERROR(OutputSize(c, c->Dim(x, 2), c->Dim(filter, 1), strides[1],
                                padding[2] + padding[3], &width));
  c->set_output(0, c->MakeShape({c->Dim(x, 0), height, width, c->Dim(filter, 3)}));
  return absl::OkStatus();
}

absl::Status InputGradientShape(InferenceContext* c) {
  std::vector<int64_t> strides, padding;
  TF_RETURN_IF_ERROR(c->GetAttr("strides", &strides));
  TF_RETURN_IF_ERROR(c->GetAttr("padding", &padding));
  TF_RETURN_IF_ERROR(CheckAttributes(strides, padding));
  ShapeHandle x, unused;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 4, &x));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 4, &unused));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 4, &unused));
  c->set_output(0, x);
  return absl::OkStatus();
}

REGISTER_OP("TfkdAdderConv2D")
    .Input("x: float")
    .Input("filter: float")
    .Attr("strides: list(int)")
    .Attr("padding: list(int)")
    .Output("y: float")
    .SetShapeFn(ForwardShape)
    .Doc(R"doc(
Negative sum of absolute differences between the patches of x and the filters.

x: NHWC.
filter: HWIO.
strides: Of height and width.
padding: Zeros on top, bottom, left and right; a padded cell counts as an input of 0.
y: NHWC, never above 0.
)doc");

REGISTER_OP("TfkdAdderConv2DInputGrad")
    .Input("x: float")
    .Input("filter: float")
    .Input("gradient: float")
    .Attr("strides: list(int)")
    .Attr("padding: list(int)")
    .Output("x_gradient: float")
    .SetShapeFn(InputGradientShape)
    .Doc(R"doc(
Sum of clip(filter - x, -1, 1) * gradient over the outputs that an input takes part in.

x: NHWC.
filter: HWIO.
gradient: With respect to the output of TfkdAdderConv2D.
strides: Of height and width.
padding: Zeros on top, bottom, left and right of x.
x_gradient: Of the shape of x.
)doc");

// Cycles of work below which it stays on one thread: waking another takes about as long.
constexpr int64_t kLeastShared = 300 * 1000;

// Runs the kernels on TensorFlow's own threads.
Parallel OnWorkersOf(OpKernelContext* context) {
  // Multiply-adds of a cycle, on two vectors: TensorFlow asks for cycles.
  const int64_t of_cycle = 2 * CurrentLevel().width;
  const auto* workers = context->device()->tensorflow_cpu_worker_threads();
  return [workers, of_cycle](int64_t total, int64_t cost,
                             const std::function<void(int64_t, int64_t)>& work) {
    const int64_t cycles = cost / of_cycle + 1;
    if (total * cycles < kLeastShared) return work(0, total);
    tensorflow::Shard(workers->num_threads, workers->workers, total, cycles, work);
  };
}

struct Cpu {
  static absl::Status Forward(OpKernelContext* context, const Geometry& sizes, const float* x,
                              const float* filter, float* y) {
    tfkd::Forward(sizes, x, filter, y, OnWorkersOf(context));
    return absl::OkStatus();
  }

  static absl::Status InputGradient(OpKernelContext* context, const Geometry& sizes, const float* x,
                                    const float* filter, const float* gradient, float* result) {
    tfkd::InputGradient(sizes, x, filter, gradient, result, OnWorkersOf(context));
    return absl::OkStatus();
  }
};

REGISTER_KERNEL_BUILDER(Name("TfkdAdderConv2D").Device(tensorflow::DEVICE_CPU), ForwardOp<Cpu>);
REGISTER_KERNEL_BUILDER(Name("TfkdAdderConv2DInputGrad").Device(tensorflow::DEVICE_CPU),
                        InputGradientOp<Cpu>);

}  // namespace
}  // namespace tfkd

// For tests and measurements, called by ctypes.
extern "C" {

__attribute__((visibility("default"))) const char* tfkd_adder_instructions() {
  return tfkd::CurrentLevel().name;
}

// Puts instructions to use. Returns false where this processor lacks them.
__attribute__((visibility("default"))) bool tfkd_adder_use_instructions(const char* name) {
  return tfkd::SelectLevel(name);
}

}  // extern "C"
