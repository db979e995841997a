// Vectors of 8 floats with FMA, for the two levels that differ in their number of registers.

#ifndef TFKD_ADDER_NATIVE_VECTOR256_H_
#define TFKD_ADDER_NATIVE_VECTOR256_H_

#include <immintrin.h>

namespace tfkd {
namespace {

struct Vector256 {
  using Value = __m256;
  static constexpr int kWidth = 8;

  static Value Load(const float* from) { return _mm256_loadu_ps(from); }
  static void Store(float* to, Value value) { _mm256_storeu_ps(to, value); }
  static Value Broadcast(const float* from) { return _mm256_broadcast_ss(from); }
  static Value Add(Value a, Value b) { return _mm256_add_ps(a, b); }
  static Value Subtract(Value a, Value b) { return _mm256_sub_ps(a, b); }
  static Value Max(Value a, Value b) { return _mm256_max_ps(a, b); }
  static Value Min(Value a, Value b) { return _mm256_min_ps(a, b); }
  static Value AddProduct(Value sum, Value a, Value b) { return _mm256_fmadd_ps(a, b, sum); }
  // sum + value * scale for a scale of 1 or -1.
  static Value AddScaled(Value sum, Value value, Value scale) {
    return _mm256_fmadd_ps(value, scale, sum);
  }
  // A constant hidden from the compiler, which would turn multiply-adds by it into additions.
  static Value Hidden(float constant) {
    Value value = _mm256_set1_ps(constant);
    asm("" : "+v"(value));
    return value;
  }
  static bool AnyAbove(Value a, Value b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
  }
  static float Total(Value value) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
  }
};

}  // namespace
}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_VECTOR256_H_
