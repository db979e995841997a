// Memory for floats, aligned to cache lines.

#ifndef TFKD_ADDER_NATIVE_BUFFER_H_
#define TFKD_ADDER_NATIVE_BUFFER_H_

#include <cstdint>
#include <memory>
#include <new>

namespace tfkd {

// Starts at a cache line; not initialized.
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

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_BUFFER_H_
