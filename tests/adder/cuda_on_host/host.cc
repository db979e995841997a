// Runs the CUDA kernels on a processor: the threads of a block are threads, blocks follow one another.

#include <barrier>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

struct Index {
  unsigned x, y, z;
};

struct alignas(16) float4 {
  float x, y, z, w;
};

static thread_local Index threadIdx, blockIdx;
static std::barrier<>* together;

#define __global__ static
#define __device__
#define __launch_bounds__(threads)
#define __shared__ static  // Blocks follow one another, so one copy is enough.

static void __syncthreads() { together->arrive_and_wait(); }

// As on a GPU, what is not a number becomes 0.
static float __saturatef(float value) { return value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f; }

#include "../../../tfkd/adder/native/cuda/choice.cuh"
#include "../../../tfkd/adder/native/cuda/forward.cuh"
#include "../../../tfkd/adder/native/cuda/input_gradient.cuh"

static int chosen;

template <typename Tile, typename Kernel>
static void Launch(int64_t rows, int64_t columns, int64_t layers, const Kernel& kernel) {
  std::barrier<> barrier(Tile::kThreads);
  together = &barrier;
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < Tile::kThreads; ++thread)
    threads.emplace_back([=, &kernel] {
      threadIdx = {thread, 0, 0};
      for (unsigned x = 0; x < tfkd::TilesAlong(rows, Tile::kRows); ++x)
        for (unsigned y = 0; y < tfkd::TilesAlong(columns, Tile::kColumns); ++y)
          for (unsigned z = 0; z < layers; ++z) {
            blockIdx = {x, y, z};
            kernel();
            together->arrive_and_wait();
          }
    });
  for (std::thread& thread : threads) thread.join();
}

extern "C" {

// The tile of all layers from now on. Returns how many there are.
int choose(int tile) {
  chosen = tile;
  return tfkd::kChoices;
}

int tfkd_adder_cuda_forward(const tfkd::Geometry* s, const float* input, const float* filter,
                            float* output, void*) {
  tfkd::VisitTile(
      chosen, tfkd::WholeQuads(*s, input, filter, output), [=](auto tile, auto whole) {
        using Tile = decltype(tile);
        Launch<Tile>(s->batch * s->output_height * s->output_width, s->filters, 1, [=] {
          tfkd::ForwardKernel<Tile, decltype(whole)::value>(*s, input, filter, output);
        });
      });
  return 0;
}

int tfkd_adder_cuda_input_gradient(const tfkd::Geometry* s, const float* input, const float* filter,
                                   const float* gradient, float* input_gradient, void*) {
  tfkd::VisitTile(
      chosen, tfkd::WholeQuads(*s, input, filter, gradient, input_gradient),
      [=](auto tile, auto whole) {
        using Tile = decltype(tile);
        Launch<Tile>(tfkd::PhasePixels(*s), s->channels, s->stride_height * s->stride_width, [=] {
          tfkd::InputGradientKernel<Tile, decltype(whole)::value>(*s, input, filter, gradient,
                                                                   input_gradient);
        });
      });
  return 0;
}

}  // extern "C"
