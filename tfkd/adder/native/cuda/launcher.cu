// The C functions of the GPU library, on device pointers. Each starts a kernel on a stream and
// returns CUDA's error code, 0 for success.

#include <algorithm>

#include "choice.cuh"
#include "forward.cuh"
#include "input_gradient.cuh"

namespace {

// The most tiles along the second and third side of a grid.
constexpr int64_t kMostTiles = 65535;
// The kernels count in 32 bits, with room for the overhang of the last tile.
constexpr int64_t kMostNumbers = int64_t{1} << 30;

int64_t ProcessorsOf(cudaError_t* error) {
  int device = 0, processors = 0;
  *error = cudaGetDevice(&device);
  if (*error == cudaSuccess)
    *error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  return processors;
}

// Calls launch(sizes, input offset, output offset) for parts of the batch, each of as many images
// as the kernels can count.
template <typename Launch>
int ForEachPart(const tfkd::Geometry& sizes, const Launch& launch) {
  const int64_t input = sizes.height * sizes.width * sizes.channels;
  const int64_t output = sizes.output_height * sizes.output_width * sizes.filters;
  const int64_t filters =
      sizes.kernel_height * sizes.kernel_width * sizes.channels * sizes.filters;
  const int64_t image = std::max(input, output);
  if (image > kMostNumbers || filters > kMostNumbers) return cudaErrorInvalidValue;
  const int64_t images = kMostNumbers / std::max<int64_t>(1, image);
  for (int64_t first = 0; first < sizes.batch; first += images) {
    tfkd::Geometry part = sizes;
    part.batch = std::min(images, sizes.batch - first);
    if (const int error = launch(part, first * input, first * output)) return error;
  }
  return cudaSuccess;
}

// Starts `kernel` on a grid of tiles of rows x columns x layers.
template <typename Tile, typename... Arguments>
int Start(void (*kernel)(Arguments...), int64_t rows, int64_t columns, int64_t layers,
          cudaStream_t stream, Arguments... arguments) {
  const int64_t across = tfkd::TilesAlong(columns, Tile::kColumns);
  if (rows == 0 || columns == 0) return cudaSuccess;
  if (across > kMostTiles || layers > kMostTiles) return cudaErrorInvalidConfiguration;
  const dim3 grid(tfkd::TilesAlong(rows, Tile::kRows), across, layers);
  kernel<<<grid, Tile::kThreads, 0, stream>>>(arguments...);
  return cudaGetLastError();
}

}  // namespace

extern "C" {

int tfkd_adder_cuda_forward(const tfkd::Geometry* sizes, const float* input, const float* filter,
                            float* output, cudaStream_t stream) {
  cudaError_t error;
  const int64_t processors = ProcessorsOf(&error);
  if (error != cudaSuccess) return error;
  const bool quads = tfkd::WholeQuads(*sizes, input, filter, output);
  return ForEachPart(*sizes, [&](const tfkd::Geometry& s, int64_t from, int64_t to) {
    const int64_t pixels = s.batch * s.output_height * s.output_width;
    int code = cudaSuccess;
    tfkd::VisitTile(
        tfkd::ChooseTile(pixels, s.filters, processors), quads, [&](auto tile, auto whole) {
          using Tile = decltype(tile);
          code = Start<Tile>(tfkd::ForwardKernel<Tile, decltype(whole)::value>, pixels, s.filters,
                             1, stream, s, input + from, filter, output + to);
        });
    return code;
  });
}

int tfkd_adder_cuda_input_gradient(const tfkd::Geometry* sizes, const float* input,
                                   const float* filter, const float* gradient,
                                   float* input_gradient, cudaStream_t stream) {
  cudaError_t error;
  const int64_t processors = ProcessorsOf(&error);
  if (error != cudaSuccess) return error;
  const bool quads = tfkd::WholeQuads(*sizes, input, filter, gradient, input_gradient);
  return ForEachPart(*sizes, [&](const tfkd::Geometry& s, int64_t from, int64_t to) {
    const int64_t pixels = tfkd::PhasePixels(s), phases = s.stride_height * s.stride_width;
    int code = cudaSuccess;
    tfkd::VisitTile(tfkd::ChooseTile(pixels * phases, s.channels, processors), quads,
                    [&](auto tile, auto whole) {
                      using Tile = decltype(tile);
                      code = Start<Tile>(
                          tfkd::InputGradientKernel<Tile, decltype(whole)::value>, pixels,
                          s.channels, phases, stream, s, input + from, filter, gradient + to,
                          input_gradient + from);
                    });
    return code;
  });
}

}  // extern "C"
