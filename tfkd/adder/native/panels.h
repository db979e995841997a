// How results are cut into panels of a few vectors, pixels into tiles, and where floats are put.

#ifndef TFKD_ADDER_NATIVE_PANELS_H_
#define TFKD_ADDER_NATIVE_PANELS_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "level.h"

namespace tfkd {

// Floats that start where a cache line does; not initialised.
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : size_(size),
        data_(static_cast<float*>(::operator new[](size * sizeof(float), kAlignment))) {}

  int64_t size() const { return size_; }
  float* data() { return data_.get(); }
  const float* data() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Delete {
    void operator()(float* data) const { ::operator delete[](data, kAlignment); }
  };
  int64_t size_;
  std::unique_ptr<float[], Delete> data_;
};

// Neighbouring results that are computed together.
struct Panel {
  int64_t first;
  int64_t valid;  // Results; fewer than `width` at the end.
  int64_t width;  // Floats, whole vectors.
  int vectors;
};

inline std::vector<Panel> PanelsOf(int64_t results, const Level& level) {
  std::vector<Panel> panels;
  for (int64_t first = 0; first < results; first += panels.back().width) {
    const int64_t left = results - first;
    const int vectors = static_cast<int>(
        std::min<int64_t>(Level::kMaxVectors, (left + level.width - 1) / level.width));
    const int64_t width = vectors * level.width;
    panels.push_back({first, std::min(left, width), width, vectors});
  }
  return panels;
}

inline int64_t TotalWidth(const std::vector<Panel>& panels) {
  return panels.empty() ? 0 : panels.back().first + panels.back().width;
}

// Pixels cut into tiles of at most `most`, as even as can be.
class Tiles {
 public:
  Tiles(int64_t pixels, int64_t most)
      : count_((pixels + most - 1) / most),
        least_(count_ == 0 ? 0 : pixels / count_),
        larger_(pixels - least_ * count_) {}

  int64_t count() const { return count_; }

  // Calls tile(first, count) for each.
  template <typename Function>
  void ForEach(const Function& tile) const {
    for (int64_t i = 0, first = 0; i < count_; ++i) {
      const int64_t count = least_ + (i < larger_);
      tile(first, count);
      first += count;
    }
  }

 private:
  int64_t count_, least_, larger_;  // Tiles, pixels of each, and how many have one more.
};

// Has the processor fetch memory that is needed soon, a piece at a time, during other work. Rows of
// images lie in memory by other steps than the loops take, which hardware does not foresee.
class Ahead {
 public:
  // Fetches [first, first + count) of `size` floats in `steps` steps.
  Ahead(const float* data, int64_t size, int64_t first, int64_t count, int64_t steps)
      : next_(data + std::min(first, size)),
        end_(data + std::min(first + count, size)),
        piece_((count / kLine + steps) / std::max<int64_t>(1, steps) * kLine) {}

  void Step() {
    for (const float* end = std::min(end_, next_ + piece_); next_ < end; next_ += kLine)
      __builtin_prefetch(next_, 0, 2);
  }

 private:
  static constexpr int64_t kLine = 16;
  const float* next_;
  const float* end_;
  int64_t piece_;
};

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_PANELS_H_
