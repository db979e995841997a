#include "simd_dispatch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <vector>

#include "buffer.h"

namespace tfkd {
namespace {

// Of equally fast ones, the later is preferred.
const Level* const kLevels[] = {
    &kPortable,
#if defined(__x86_64__)
    &kAvx2,
    &kAvx512vl,
    &kAvx512,
#endif
};

bool Supported(const Level& level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (&level == &kAvx512) return __builtin_cpu_supports("avx512f");
  if (&level == &kAvx512vl)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
  if (&level == &kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return &level == &kPortable;
}

// Times the largest tiles of a level, forward and gradient, on a block of the usual length.
class Trial {
 public:
  explicit Trial(const Level& level)
      : level_(level), values_(2 * kFloats), sums_(kFloats), run_{0, 0, kTerms} {
    for (int64_t i = 0; i < 2 * kFloats; ++i) values_.data()[i] = static_cast<float>(i % 7) - 3.0f;
    for (int p = 0; p < Level::kMaxPixels; ++p) {
      windows_[p] = p * kTerms;
      pixels_[p] = p;
    }
    tile_.values = values_.data();
    tile_.windows = windows_;
    tile_.pixels = pixels_;
    tile_.step = Level::kMaxVectors * level.width;
    tile_.own = tile_.pixel_sums = values_.data();
    tile_.any_near = &any_near_;
    tile_.panel = tile_.filter_sums = values_.data() + kFloats;
    tile_.runs = &run_;
    tile_.run_count = 1;
    tile_.sums = sums_.data();
    tile_.first = tile_.last = true;
  }

  Trial(const Trial&) = delete;

  // Times another round. Returns the least time so far of an output and an input gradient together.
  double Seconds() {
    forward_ = std::min(forward_, Time(level_.forward, level_.forward_pixels));
    gradient_ = std::min(gradient_, Time(level_.gradient, level_.gradient_pixels));
    return forward_ + gradient_;
  }

 private:
  static constexpr int64_t kTerms = 192, kRepeats = 16;
  // For the widest vectors and the largest tiles that there may be.
  static constexpr int64_t kFloats = kTerms * 16 * Level::kMaxVectors;

  double Time(const TileFunction (&functions)[Level::kMaxVectors][Level::kMaxPixels],
              const int (&pixels)[Level::kMaxVectors]) {
    constexpr int kLast = Level::kMaxVectors - 1;
    const int most = pixels[kLast];
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < kRepeats; ++i) functions[kLast][most - 1](tile_);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    return passed.count() / (most * level_.width);
  }

  const Level& level_;
  Buffer values_, sums_;
  const Run run_;
  int64_t windows_[Level::kMaxPixels], pixels_[Level::kMaxPixels];
  Tile tile_ = {};
  bool any_near_ = false;
  double forward_ = 1.0, gradient_ = 1.0;
};

// Measured, as the width of vectors does not tell: some processors split long vectors in halves,
// and do their maxima at half the rate of multiply-adds. Takes about a millisecond.
const Level* FastestLevel() {
  constexpr int kRounds = 8;
  const Level* fastest = &kPortable;
  std::vector<std::unique_ptr<Trial>> trials;
  std::vector<const Level*> levels;
  for (const Level* level : kLevels)
    if (level != &kPortable && Supported(*level)) {
      levels.push_back(level);
      trials.push_back(std::make_unique<Trial>(*level));
    }
  double least = 1.0;
  for (int round = 0; round < kRounds; ++round)
    for (auto& trial : trials) trial->Seconds();
  for (size_t i = 0; i < trials.size(); ++i)
    if (const double seconds = trials[i]->Seconds(); seconds <= least) {
      least = seconds;
      fastest = levels[i];
    }
  return fastest;
}

std::atomic<const Level*>& Selected() {
  static std::atomic<const Level*> selected(FastestLevel());
  return selected;
}

}  // namespace

const Level& CurrentLevel() { return *Selected().load(); }

bool SelectLevel(const char* name) {
  for (const Level* level : kLevels)
    if (std::strcmp(level->name, name) == 0 && Supported(*level)) {
      Selected().store(level);
      return true;
    }
  return false;
}

}  // namespace tfkd
