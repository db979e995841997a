// Microkernels: the inner loops as templates over the vectors of a level. Included by its file.

#ifndef TFKD_ADDER_NATIVE_MICROKERNELS_H_
#define TFKD_ADDER_NATIVE_MICROKERNELS_H_

#include "simd_dispatch.h"

namespace tfkd {
namespace {

constexpr float kLowest = -__FLT_MAX__;

#define TFKD_UNROLLED _Pragma("GCC unroll 16")

// The sums of one pixel: sum += max(x, f). The addition is a multiply-add by 1 where that runs on
// other units than max does. A level may specialize it.
template <typename Vector, int kVectors>
struct PixelOfMaxima {
  using Value = typename Vector::Value;

  static void Add(Value (&sums)[kVectors], const float& x, const Value (&filter)[kVectors],
                  Value one) {
    const Value value = Vector::Broadcast(&x);
    TFKD_UNROLLED for (int v = 0; v < kVectors; ++v)
      sums[v] = Vector::AddScaled(sums[v], Vector::Max(value, filter[v]), one);
  }
};

template <typename Vector, int kPixels, int kVectors>
struct SumOfMaxima {
  using Value = typename Vector::Value;

  explicit SumOfMaxima(const Tile&) : one(Vector::Hidden(1.0f)) {}

  void Add(Value (&sums)[kVectors], const float& x, const Value (&filter)[kVectors], int) const {
    PixelOfMaxima<Vector, kVectors>::Add(sums, x, filter, one);
  }

  Value one;
};

// The sums of one pixel: sum += clip(f - x, -1, 1) * g, where x is the input at the place of the
// sum. A NaN difference stays NaN, as Max and Min then return their second argument.
template <typename Vector, int kVectors>
struct PixelOfClipped {
  using Value = typename Vector::Value;

  static void Add(Value (&sums)[kVectors], const float& gradient, const Value (&filter)[kVectors],
                  const float (&own)[kVectors][Vector::kWidth], Value one, Value minus_one) {
    const Value factor = Vector::Broadcast(&gradient);
    TFKD_UNROLLED for (int v = 0; v < kVectors; ++v) {
      const Value difference = Vector::AddScaled(filter[v], Vector::Load(own[v]), minus_one);
      const Value clipped = Vector::Min(one, Vector::Max(minus_one, difference));
      sums[v] = Vector::AddProduct(sums[v], clipped, factor);
    }
  }
};

template <typename Vector, int kPixels, int kVectors>
struct SumOfClipped {
  using Value = typename Vector::Value;

  explicit SumOfClipped(const Tile& tile)
      : one(Vector::Hidden(1.0f)), minus_one(Vector::Hidden(-1.0f)) {
    const float* of[kPixels];
    TFKD_UNROLLED for (int p = 0; p < kPixels; ++p)
      of[p] = tile.own + tile.pixels[p] * tile.step;
    TFKD_UNROLLED for (int p = 0; p < kPixels; ++p)
      TFKD_UNROLLED for (int v = 0; v < kVectors; ++v)
        Vector::Store(own[p][v], Vector::Load(of[p] + v * Vector::kWidth));
  }

  void Add(Value (&sums)[kVectors], const float& gradient, const Value (&filter)[kVectors],
           int p) const {
    PixelOfClipped<Vector, kVectors>::Add(sums, gradient, filter, own[p], one, minus_one);
  }

  Value one, minus_one;
  alignas(64) float own[kPixels][kVectors][Vector::kWidth];
};

// Loads address memory as window + term, so that one register moves on for all pixels, and several
// terms are done in a row: counting and comparing would take the slots of arithmetic.
template <typename Vector, typename Term, int kPixels, int kVectors>
inline __attribute__((always_inline)) void SumBlock(
    const Tile& tile, const Term& term, typename Vector::Value (&sums)[kPixels][kVectors]) {
  using Value = typename Vector::Value;
  constexpr int kTerms = Vector::kTermsInARow, kPanel = kVectors * Vector::kWidth;
  TFKD_UNROLLED for (int p = 0; p < kPixels; ++p)
    TFKD_UNROLLED for (int v = 0; v < kVectors; ++v) sums[p][v] = Vector::Hidden(0.0f);
  const float* windows[kPixels];
  TFKD_UNROLLED for (int p = 0; p < kPixels; ++p) {
    windows[p] = tile.values + tile.windows[p];
    asm("" : "+r"(windows[p]));
  }
  const auto add = [&](int64_t k, const float* panel) __attribute__((always_inline)) {
    Value filter[kVectors];
    TFKD_UNROLLED for (int v = 0; v < kVectors; ++v)
      filter[v] = Vector::Load(panel + v * Vector::kWidth);
    TFKD_UNROLLED for (int p = 0; p < kPixels; ++p)
      term.Add(sums[p], windows[p][k], filter, p);
  };
  for (const Run *run = tile.runs, *end = run + tile.run_count; run != end; ++run) {
    const float* panel = tile.panel + run->term * kPanel;
    int64_t k = run->offset, left = run->length;
    for (; left >= kTerms; left -= kTerms) {
      asm("" : "+r"(k), "+r"(panel));
      TFKD_UNROLLED for (int t = 0; t < kTerms; ++t) add(k + t, panel + t * kPanel);
      k += kTerms;
      panel += kTerms * kPanel;
    }
    for (; left > 0; --left, ++k, panel += kPanel) add(k, panel);
  }
}

// Adds the sums of a tile to those of the blocks before, if any, and stores finish(sum, pixel,
// vector) of each. For all the compiler knows, storing a vector changes any memory: the fields of
// the tile are copied first, or they would be read again after every store.
template <typename Vector, int kPixels, int kVectors, typename Finish>
inline __attribute__((always_inline)) void StoreSums(
    const Tile& tile, const typename Vector::Value (&sums)[kPixels][kVectors],
    const Finish& finish) {
  float* const places = tile.sums;
  const int64_t *const pixels = tile.pixels, step = tile.step;
  const bool add = !tile.first;
  TFKD_UNROLLED for (int p = 0; p < kPixels; ++p) {
    const int64_t pixel = pixels[p];
    float* const place = places + pixel * step;
    TFKD_UNROLLED for (int v = 0; v < kVectors; ++v) {
      typename Vector::Value sum = sums[p][v];
      if (add) sum = Vector::Add(sum, Vector::Load(place + v * Vector::kWidth));
      Vector::Store(place + v * Vector::kWidth, finish(sum, pixel, v));
    }
  }
}

// -sum |x - f| = sum x + sum f - 2 sum max(x, f).
template <typename Vector, int kPixels, int kVectors>
void ForwardTile(const Tile& tile) {
  using Value = typename Vector::Value;
  Value sums[kPixels][kVectors];
  const SumOfMaxima<Vector, kPixels, kVectors> term(tile);
  SumBlock<Vector>(tile, term, sums);
  if (!tile.last) {
    StoreSums<Vector>(tile, sums, [](Value sum, int64_t, int) { return sum; });
    return;
  }
  const Value minus_two = Vector::Hidden(-2.0f);
  const float* const pixel_sums = tile.pixel_sums;
  Value filter_sums[kVectors], nearest[kVectors];
  TFKD_UNROLLED for (int v = 0; v < kVectors; ++v) {
    filter_sums[v] = Vector::Load(tile.filter_sums + v * Vector::kWidth);
    nearest[v] = Vector::Hidden(kLowest);
  }
  StoreSums<Vector>(tile, sums, [&](Value sum, int64_t pixel, int v) {
    const Value linear = Vector::Add(Vector::Broadcast(pixel_sums + pixel), filter_sums[v]);
    const Value result = Vector::AddProduct(linear, minus_two, sum);
    // Of a NaN, Max returns its second argument.
    nearest[v] = Vector::Max(result, nearest[v]);
    return result;
  });
  TFKD_UNROLLED for (int v = 1; v < kVectors; ++v)
    nearest[0] = Vector::Max(nearest[v], nearest[0]);
  if (Vector::AnyAbove(nearest[0], Vector::Broadcast(&tile.near))) *tile.any_near = true;
}

template <typename Vector, int kVectors>
void Distances(const float* window, const Run* runs, int64_t run_count, const float* panel,
               float* sums) {
  using Value = typename Vector::Value;
  const Value zero = Vector::Hidden(0.0f);
  Value totals[kVectors];
  TFKD_UNROLLED for (int v = 0; v < kVectors; ++v) totals[v] = zero;
  for (const Run *run = runs, *end = run + run_count; run != end; ++run) {
    const float* filter = panel + run->term * kVectors * Vector::kWidth;
    for (const float *x = window + run->offset, *last = x + run->length; x != last; ++x) {
      const Value value = Vector::Broadcast(x);
      TFKD_UNROLLED for (int v = 0; v < kVectors; ++v, filter += Vector::kWidth) {
        const Value difference = Vector::Subtract(value, Vector::Load(filter));
        const Value opposite = Vector::Subtract(zero, difference);
        totals[v] = Vector::Add(totals[v], Vector::Max(difference, opposite));
      }
    }
  }
  TFKD_UNROLLED for (int v = 0; v < kVectors; ++v)
    Vector::Store(sums + v * Vector::kWidth, totals[v]);
}

template <typename Vector, int kPixels, int kVectors>
void GradientTile(const Tile& tile) {
  using Value = typename Vector::Value;
  Value sums[kPixels][kVectors];
  const SumOfClipped<Vector, kPixels, kVectors> term(tile);
  SumBlock<Vector>(tile, term, sums);
  StoreSums<Vector>(tile, sums, [](Value sum, int64_t, int) { return sum; });
}

// Sums of neighboring floats are formed in 16 lanes and the lanes added in one order, whatever the
// width of a vector, so that all levels agree to the last bit.
template <typename Vector>
struct Lanes {
  static constexpr int kFloats = 16, kVectors = kFloats / Vector::kWidth;

  Lanes() {
    TFKD_UNROLLED for (int v = 0; v < kVectors; ++v) sums[v] = Vector::Hidden(0.0f);
  }

  float Total() {
    TFKD_UNROLLED for (int half = kVectors / 2; half > 0; half /= 2)
      TFKD_UNROLLED for (int v = 0; v < half; ++v) sums[v] = Vector::Add(sums[v], sums[v + half]);
    return Vector::Total(sums[0]);
  }

  typename Vector::Value sums[kVectors];
};

template <typename Vector>
void SumWindows(const float* source, int64_t taps, int64_t step, int64_t count, float* target) {
  int64_t i = 0;
  for (; i + Vector::kWidth <= count; i += Vector::kWidth) {
    typename Vector::Value sum = Vector::Load(source + i);
    for (int64_t tap = 1; tap < taps; ++tap)
      sum = Vector::Add(sum, Vector::Load(source + i + tap * step));
    Vector::Store(target + i, sum);
  }
  for (; i < count; ++i) {
    float sum = source[i];
    for (int64_t tap = 1; tap < taps; ++tap) sum += source[i + tap * step];
    target[i] = sum;
  }
}

template <typename Vector>
void Shift(const float* source, int64_t source_step, const float* shift, int64_t cells,
           int64_t channels, float* target, float* sums) {
  constexpr int kWidth = Vector::kWidth;
  using Sums = Lanes<Vector>;
  const int64_t whole = channels / Sums::kFloats * Sums::kFloats;
  for (int64_t i = 0; i < cells; ++i) {
    const float* from = source + i * source_step;
    float* to = target + i * channels;
    Sums lanes;
    for (int64_t c = 0; c < whole; c += Sums::kFloats)
      TFKD_UNROLLED for (int v = 0; v < Sums::kVectors; ++v) {
        const int64_t place = c + v * kWidth;
        const typename Vector::Value value =
            Vector::Subtract(Vector::Load(from + place), Vector::Load(shift + place));
        Vector::Store(to + place, value);
        lanes.sums[v] = Vector::Add(lanes.sums[v], value);
      }
    sums[i] = lanes.Total();
  }
  if (whole == channels) return;
  for (int64_t i = 0; i < cells; ++i) {
    float rest = 0.0f;
    for (int64_t c = whole; c < channels; ++c) {
      float& value = target[i * channels + c];
      value = source[i * source_step + c] - shift[c];
      rest += value;
    }
    sums[i] += rest;
  }
}

// The compiler vectorizes this: panels are whole vectors, and no two arrays overlap.
template <typename Vector, int kVectors>
void PackPanel(const float* __restrict source, int64_t step, const float* __restrict shift,
               int64_t terms, int64_t valid, float* __restrict target, double* __restrict seen,
               double* __restrict unseen, double* __restrict shrunk) {
  constexpr int kPanel = kVectors * Vector::kWidth;
  for (int64_t k = 0; k < terms; ++k, source += step, target += kPanel) {
    const float own = shift[k];
    if (valid == kPanel) {
      for (int f = 0; f < kPanel; ++f) target[f] = source[f] - own;
      for (int f = 0; f < kPanel; ++f) seen[f] += target[f];
      for (int f = 0; f < kPanel; ++f) unseen[f] -= __builtin_fabsf(source[f]);
      if (own != 0.0f)
        for (int f = 0; f < kPanel; ++f)
          shrunk[f] += __builtin_fabsf(target[f]) - __builtin_fabsf(source[f]);
      continue;
    }
    for (int64_t f = 0; f < valid; ++f) {
      target[f] = source[f] - own;
      seen[f] += target[f];
      unseen[f] -= __builtin_fabsf(source[f]);
      shrunk[f] += __builtin_fabsf(target[f]) - __builtin_fabsf(source[f]);
    }
    for (int64_t f = valid; f < kPanel; ++f) target[f] = 0.0f;
  }
}

template <typename Vector>
void Pack(const float* source, int64_t step, const float* shift, int64_t terms, int64_t valid,
          int64_t width, float* target, double* seen, double* unseen, double* shrunk) {
  static_assert(Level::kMaxVectors == 2);
  (width == Vector::kWidth ? PackPanel<Vector, 1> : PackPanel<Vector, 2>)(
      source, step, shift, terms, valid, target, seen, unseen, shrunk);
}

template <typename Vector>
float Deviations(const float* values, int64_t count, float center, bool absolute) {
  const typename Vector::Value zero = Vector::Hidden(0.0f), centers = Vector::Hidden(center);
  using Sums = Lanes<Vector>;
  Sums lanes;
  int64_t i = 0;
  for (; i + Sums::kFloats <= count; i += Sums::kFloats)
    TFKD_UNROLLED for (int v = 0; v < Sums::kVectors; ++v) {
      const typename Vector::Value difference =
          Vector::Subtract(Vector::Load(values + i + v * Vector::kWidth), centers);
      const typename Vector::Value opposite = Vector::Subtract(zero, difference);
      lanes.sums[v] =
          Vector::Add(lanes.sums[v], absolute ? Vector::Max(difference, opposite) : difference);
    }
  float rest = 0.0f;
  for (; i < count; ++i) {
    const float difference = values[i] - center;
    rest += absolute && difference < 0.0f ? -difference : difference;
  }
  return lanes.Total() + rest;
}

template <typename Vector, int kVectors, int kPixels>
constexpr void FillTiles(Level* level) {
  if constexpr (kPixels > 0) {
    if constexpr (kPixels <= Vector::kForwardPixels[kVectors - 1])
      level->forward[kVectors - 1][kPixels - 1] = ForwardTile<Vector, kPixels, kVectors>;
    if constexpr (kPixels <= Vector::kGradientPixels[kVectors - 1])
      level->gradient[kVectors - 1][kPixels - 1] = GradientTile<Vector, kPixels, kVectors>;
    FillTiles<Vector, kVectors, kPixels - 1>(level);
  }
}

template <typename Vector>
constexpr Level MakeLevel(const char* name) {
  Level level = {};
  level.name = name;
  level.width = Vector::kWidth;
  for (int v = 0; v < Level::kMaxVectors; ++v) {
    level.forward_pixels[v] = Vector::kForwardPixels[v];
    level.gradient_pixels[v] = Vector::kGradientPixels[v];
  }
  FillTiles<Vector, 1, Level::kMaxPixels>(&level);
  FillTiles<Vector, 2, Level::kMaxPixels>(&level);
  level.distances[0] = Distances<Vector, 1>;
  level.distances[1] = Distances<Vector, 2>;
  level.sum_windows = SumWindows<Vector>;
  level.shift = Shift<Vector>;
  level.pack = Pack<Vector>;
  level.deviations = Deviations<Vector>;
  return level;
}

#undef TFKD_UNROLLED

}  // namespace
}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_MICROKERNELS_H_
