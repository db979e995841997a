#include "level.h"

#include <atomic>
#include <cstring>

namespace tfkd {
namespace {

bool Supported(const Level& level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (&level == &kAvx512) return __builtin_cpu_supports("avx512f");
  if (&level == &kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return &level == &kPortable;
}

// The best first.
const Level* const kLevels[] = {
#if defined(__x86_64__)
    &kAvx512,
    &kAvx2,
#endif
    &kPortable,
};

const Level* BestLevel() {
  for (const Level* level : kLevels)
    if (Supported(*level)) return level;
  return &kPortable;
}

std::atomic<const Level*>& Selected() {
  static std::atomic<const Level*> selected(BestLevel());
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
