// AVX-512 on short vectors: 32 registers of 8 floats. On a processor that splits long vectors in
// halves (Zen 4), maxima and multiply-adds of short ones ran at full rate, those of long ones at
// 0.5 to 0.7 of it.

#if defined(__x86_64__)

#include "microkernels.h"
#include "vector256.h"

namespace tfkd {
namespace {

struct Avx512vl : Vector256 {
  static constexpr int kTermsInARow = 2;
  // Fewer than the registers hold: on Zen 4 these were faster than larger tiles, forward by 4 %,
  // the gradient by 8 %.
  static constexpr int kForwardPixels[] = {10, 11};
  static constexpr int kGradientPixels[] = {10, 5};
};

}  // namespace

const Level kAvx512vl = MakeLevel<Avx512vl>("avx512vl");

}  // namespace tfkd

#endif  // defined(__x86_64__)
