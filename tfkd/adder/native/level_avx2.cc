// AVX2 with FMA: 16 registers of 8 floats.

#if defined(__x86_64__)

#define TFKD_TERMS_UNROLLED _Pragma("GCC unroll 4")
#include "loops.h"
#include "vector256.h"

namespace tfkd {
namespace {

struct Avx2 : Vector256 {
  static constexpr int kForwardPixels[] = {8, 5};
  static constexpr int kGradientPixels[] = {8, 4};
};

}  // namespace

const Level kAvx2 = MakeLevel<Avx2>("avx2");

}  // namespace tfkd

#endif  // defined(__x86_64__)
