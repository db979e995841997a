// Runs the CUDA kernels on a processor: the threads of a block are threads, blocks follow one another.

#include <barrier>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

struct Index {
  unsigned x, y;
};

static thread_local Index threadIdx, blockIdx;
static std::barrier<>* together;

#define __global__ static
#define __device__
#define __shared__ static  // Blocks follow one another, so one copy is enough.

static void __syncthreads() { together->arrive_and_wait(); }

#include "../../../tfkd/adder/native/cuda/kernels.cuh"

template <typename Kernel>
static void Launch(int64_t pixels, int64_t others, const Kernel& kernel) {
  std::barrier<> barrier(tfkd::kThreads);
  together = &barrier;
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < tfkd::kThreads; ++thread)
    threads.emplace_back([=, &kernel] {
      threadIdx = {thread, 0};
      for (unsigned x = 0; x < tfkd::Tiles(pixels); ++x)
        for (unsigned y = 0; y < tfkd::Tiles(others); ++y) {
          blockIdx = {x, y};
          kernel();
          together->arrive_and_wait();
        }
    });
  for (std::thread& thread : threads) thread.join();
}

extern "C" {

int tfkd_adder_cuda_forward(const tfkd::Geometry* s, const float* input, const float* filter,
                            float* output, void*) {
  Launch(s->batch * s->output_height * s->output_width, s->filters,
         [=] { tfkd::ForwardKernel(*s, input, filter, output); });
  return 0;
}

int tfkd_adder_cuda_input_gradient(const tfkd::Geometry* s, const float* input, const float* filter,
                                   const float* gradient, float* input_gradient, void*) {
  Launch(s->batch * s->height * s->width, s->channels,
         [=] { tfkd::InputGradientKernel(*s, input, filter, gradient, input_gradient); });
  return 0;
}

}  // extern "C"
