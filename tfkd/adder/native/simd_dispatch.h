// Levels: the microkernels as compiled for one instruction set each, and the choice among them.
//
// All other code is compiled once, for the plainest processor, and calls a level by its table. The
// files of levels include only this, microkernels.h and their vectors: of an inline function of the
// standard library, the linker might keep their copy, with instructions that others lack.

#ifndef TFKD_ADDER_NATIVE_SIMD_DISPATCH_H_
#define TFKD_ADDER_NATIVE_SIMD_DISPATCH_H_

#include <cstdint>

namespace tfkd {

// Neighboring terms of a sum, one for each float of a stretch of memory.
struct Run {
  int64_t offset;  // From the first tap that a pixel sees, in floats.
  int64_t term;    // The number of its first term in the panel.
  int64_t length;
};

// A tile: the sums of one block for some pixels of a region times some vectors of results.
struct Tile {
  // One value for each pixel and term, used for all results; and the offset of the taps that each
  // pixel sees, in floats.
  const float* values;
  const int64_t* windows;
  const Run* runs;
  int64_t run_count;
  // Filters: for each term one value for each result, side by side.
  const float* panel;
  // The sums. Those of pixel p are pixels[p] * step floats on; pixels[p] is its number in the band.
  float* sums;
  const int64_t* pixels;
  int64_t step;
  bool first;  // Sums are written, else added to what is there.
  bool last;   // Forward: the sums are complete.
  // Forward: the sums of x of each of a band's pixels, and of the filters of each result.
  const float* pixel_sums;
  const float* filter_sums;
  // Forward: the value above which a result may be near 0, and what becomes true if one is.
  float near;
  bool* any_near;
  // Input gradient: x, laid out as the sums are.
  const float* own;
};

using TileFunction = void (*)(const Tile& tile);

// For one pixel and a panel: the sums of |x - f| over some runs, one for each result.
using DistanceFunction = void (*)(const float* window, const Run* runs, int64_t run_count,
                                  const float* panel, float* sums);

struct Level {
  static constexpr int kMaxVectors = 2, kMaxPixels = 11;

  const char* name;
  int width;  // Floats in a vector.
  // By vectors - 1: the most pixels of a tile. More would run out of registers or be slower.
  int forward_pixels[kMaxVectors];
  int gradient_pixels[kMaxVectors];
  // By vectors - 1 and pixels - 1.
  TileFunction forward[kMaxVectors][kMaxPixels];
  TileFunction gradient[kMaxVectors][kMaxPixels];
  // By vectors - 1.
  DistanceFunction distances[kMaxVectors];
  // target[i] = the sum over t < taps of source[i + t * step]. The target may be the source.
  void (*sum_windows)(const float* source, int64_t taps, int64_t step, int64_t count,
                      float* target);
  // target[i, c] = source[i, c] - shift[c] and sums[i] = sum over c of target[i, c].
  void (*shift)(const float* source, int64_t source_step, const float* shift, int64_t cells,
                int64_t channels, float* target, float* sums);
  // For `terms` rows of filters of a panel, `step` floats apart: target[k, f] = source[k, f] -
  // shift[k], or 0 from `valid` of `width` on, added to seen[f], -|source[k, f]| to unseen[f], and
  // |target[k, f]| - |source[k, f]| to shrunk[f].
  void (*pack)(const float* source, int64_t step, const float* shift, int64_t terms, int64_t valid,
               int64_t width, float* target, double* seen, double* unseen, double* shrunk);
  // The sum of values[i] - center, or of its absolute value.
  float (*deviations)(const float* values, int64_t count, float center, bool absolute);
};

extern const Level kPortable;
#if defined(__x86_64__)
extern const Level kAvx2;
extern const Level kAvx512vl;
extern const Level kAvx512;
#endif

// The level in use: the fastest here, as measured at the first call, unless another was selected.
// All give the same outputs to the last bit, and the same gradients, except for the portable one,
// whose multiply-adds round twice.
const Level& CurrentLevel();

// Selects a level by name, for tests and measurements. Returns false where this processor lacks it.
bool SelectLevel(const char* name);

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_SIMD_DISPATCH_H_
