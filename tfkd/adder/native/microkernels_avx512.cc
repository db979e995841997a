// AVX-512: 32 registers of 16 floats.

#if defined(__x86_64__)

#include <immintrin.h>

#include "microkernels.h"

namespace tfkd {
namespace {

struct Avx512 {
  using Value = __m512;
  static constexpr int kWidth = 16;
  static constexpr int kTermsInARow = 1;
  static constexpr int kForwardPixels[] = {11, 9};
  static constexpr int kGradientPixels[] = {8, 6};

  static Value Load(const float* from) { return _mm512_loadu_ps(from); }
  static void Store(float* to, Value value) { _mm512_storeu_ps(to, value); }
  static Value Broadcast(const float* from) { return _mm512_set1_ps(*from); }
  static Value Add(Value a, Value b) { return _mm512_add_ps(a, b); }
  static Value Subtract(Value a, Value b) { return _mm512_sub_ps(a, b); }
  static Value Max(Value a, Value b) { return _mm512_max_ps(a, b); }
  static Value Min(Value a, Value b) { return _mm512_min_ps(a, b); }
  static Value AddProduct(Value sum, Value a, Value b) { return _mm512_fmadd_ps(a, b, sum); }
  // sum + value * scale for a scale of 1 or -1.
  static Value AddScaled(Value sum, Value value, Value scale) {
    return _mm512_fmadd_ps(value, scale, sum);
  }
  // A constant hidden from the compiler, which would turn multiply-adds by it into additions.
  static Value Hidden(float constant) {
    Value value = _mm512_set1_ps(constant);
    asm("" : "+v"(value));
    return value;
  }
  static bool AnyAbove(Value a, Value b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
  static float Total(Value value) { return _mm512_reduce_add_ps(value); }
};

}  // namespace

const Level kAvx512 = MakeLevel<Avx512>("avx512");

}  // namespace tfkd

#endif  // defined(__x86_64__)
