// Any processor: vectors of 4 floats by the compiler's own means (SSE, NEON), without fused
// multiply-adds.

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "microkernels.h"

namespace tfkd {
namespace {

struct Portable {
  typedef float Value __attribute__((vector_size(16)));
  typedef float Unaligned __attribute__((vector_size(16), aligned(4), may_alias));
  static constexpr int kWidth = 4;
  static constexpr int kTermsInARow = 2;
  static constexpr int kForwardPixels[] = {8, 4};
  static constexpr int kGradientPixels[] = {8, 4};

  static Value Load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
  static void Store(float* to, Value value) { *reinterpret_cast<Unaligned*>(to) = value; }
  static Value Broadcast(const float* from) { return Hidden(*from); }
  static Value Add(Value a, Value b) { return a + b; }
  static Value Subtract(Value a, Value b) { return a - b; }
#if defined(__SSE__)  // Of the plain forms, GCC makes three instructions.
  static Value Max(Value a, Value b) { return _mm_max_ps(a, b); }
  static Value Min(Value a, Value b) { return _mm_min_ps(a, b); }
  static bool AnyAbove(Value a, Value b) { return _mm_movemask_ps(_mm_cmpgt_ps(a, b)) != 0; }
#else
  static Value Max(Value a, Value b) { return a > b ? a : b; }
  static Value Min(Value a, Value b) { return a < b ? a : b; }
  static bool AnyAbove(Value a, Value b) {
    return a[0] > b[0] || a[1] > b[1] || a[2] > b[2] || a[3] > b[3];
  }
#endif
  static Value AddProduct(Value sum, Value a, Value b) { return sum + a * b; }
  // sum + value * scale for a scale of 1 or -1.
  static Value AddScaled(Value sum, Value value, Value scale) { return sum + value * scale; }
  static Value Hidden(float constant) { return Value{constant, constant, constant, constant}; }
  static float Total(Value value) { return (value[0] + value[2]) + (value[1] + value[3]); }
};

}  // namespace

const Level kPortable = MakeLevel<Portable>("portable");

}  // namespace tfkd
