// Fetches memory into the cache ahead of its use.

#ifndef TFKD_ADDER_NATIVE_PREFETCHER_H_
#define TFKD_ADDER_NATIVE_PREFETCHER_H_

#include <algorithm>
#include <cstdint>

namespace tfkd {

// Asks for the memory of the next band a piece at a time, during other work. The loops take rows of
// images in steps that the hardware does not foresee.
class Prefetcher {
 public:
  // Fetches [first, first + count) of `size` floats in `steps` steps.
  Prefetcher(const float* data, int64_t size, int64_t first, int64_t count, int64_t steps)
      : next_(data + std::min(first, size)),
        end_(data + std::min(first + count, size)),
        piece_((count / kLine + steps) / std::max<int64_t>(1, steps) * kLine) {}

  void Step() {
    for (const float* end = std::min(end_, next_ + piece_); next_ < end; next_ += kLine)
      __builtin_prefetch(next_, 0, 2);
  }

 private:
  static constexpr int64_t kLine = 16;  // Floats of a cache line.
  const float* next_;
  const float* end_;
  int64_t piece_;
};

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_PREFETCHER_H_
