// AVX2 with FMA: 16 registers of 8 floats.

#if defined(__x86_64__)

#include "microkernels.h"
#include "vector256.h"

namespace tfkd {
namespace {

struct Avx2 : Vector256 {
  static constexpr int kTermsInARow = 4;
  static constexpr int kForwardPixels[] = {8, 5};
  static constexpr int kGradientPixels[] = {8, 4};
};

// The terms of two vectors, every step for both before the next one: so the units of Zen 3 are kept
// busy, those for maxima and those for multiply-adds. The compiler's order is slower there.
template <>
struct PixelOfMaxima<Avx2, 2> {
  using Value = Avx2::Value;

  static void Add(Value (&sums)[2], const float& x, const Value (&filter)[2], Value one) {
    Value first, second;
    asm("vbroadcastss %[x], %[second]\n\t"
        "vmaxps %[filter0], %[second], %[first]\n\t"
        "vmaxps %[filter1], %[second], %[second]\n\t"
        "vfmadd231ps %[one], %[first], %[sum0]\n\t"
        "vfmadd231ps %[one], %[second], %[sum1]"
        : [sum0] "+&x"(sums[0]), [sum1] "+x"(sums[1]), [first] "=&x"(first),
          [second] "=&x"(second)
        : [x] "m"(x), [filter0] "x"(filter[0]), [filter1] "x"(filter[1]), [one] "x"(one));
  }
};

template <>
struct PixelOfClipped<Avx2, 2> {
  using Value = Avx2::Value;

  static void Add(Value (&sums)[2], const float& gradient, const Value (&filter)[2],
                  const float (&own)[2][Avx2::kWidth], Value one, Value minus_one) {
    Value first, second, factor;
    asm("vmovaps %[own0], %[first]\n\t"
        "vmovaps %[own1], %[second]\n\t"
        "vfmadd132ps %[minus_one], %[filter0], %[first]\n\t"
        "vfmadd132ps %[minus_one], %[filter1], %[second]\n\t"
        "vbroadcastss %[gradient], %[factor]\n\t"
        "vmaxps %[first], %[minus_one], %[first]\n\t"
        "vmaxps %[second], %[minus_one], %[second]\n\t"
        "vminps %[first], %[one], %[first]\n\t"
        "vminps %[second], %[one], %[second]\n\t"
        "vfmadd231ps %[factor], %[first], %[sum0]\n\t"
        "vfmadd231ps %[factor], %[second], %[sum1]"
        : [sum0] "+x"(sums[0]), [sum1] "+x"(sums[1]), [first] "=&x"(first),
          [second] "=&x"(second), [factor] "=&x"(factor)
        : [gradient] "m"(gradient), [own0] "m"(own[0]), [own1] "m"(own[1]),
          [filter0] "x"(filter[0]), [filter1] "x"(filter[1]), [one] "x"(one),
          [minus_one] "x"(minus_one));
  }
};

}  // namespace

const Level kAvx2 = MakeLevel<Avx2>("avx2");

}  // namespace tfkd

#endif  // defined(__x86_64__)
