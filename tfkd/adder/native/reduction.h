// Runs and blocks: how the long sums of both kernels are cut.
//
// Both kernels are sums over three nested indices (rows and columns of the window, then channels
// or filters), of which the inner two lie side by side in memory. Such a stretch is a run. Runs are
// cut and grouped into blocks of about kBlockTerms terms: a block is summed in registers before it
// is added to the total. That is more exact than one long sum, and the filters of a block stay in
// the first-level cache while many pixels use them. A sum without terms is one empty block.

#ifndef TFKD_ADDER_NATIVE_REDUCTION_H_
#define TFKD_ADDER_NATIVE_REDUCTION_H_

#include <cstdint>
#include <vector>

#include "simd_dispatch.h"

namespace tfkd {

struct Block {
  int64_t first_run, runs;
};

struct Reduction {
  static constexpr int64_t kBlockTerms = 192;

  // `rows` stretches of `length` floats, `pitch` floats apart; their terms in the panel start at
  // `first_term` and are `term_pitch` apart.
  Reduction(int64_t rows, int64_t length, int64_t pitch, int64_t first_term, int64_t term_pitch);

  std::vector<Run> runs;
  std::vector<Block> blocks;
};

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_REDUCTION_H_
