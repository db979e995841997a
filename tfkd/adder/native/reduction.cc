#include "reduction.h"

#include <algorithm>

namespace tfkd {
namespace {

int64_t CeilingDivide(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

}  // namespace

Reduction::Reduction(int64_t rows, int64_t length, int64_t pitch, int64_t first_term,
                     int64_t term_pitch) {
  if (rows * length == 0) {
    blocks.push_back({0, 0});
    return;
  }
  // Either several rows make a block, or several blocks a row; as even as can be.
  const int64_t pieces = CeilingDivide(length, kBlockTerms);
  const int64_t piece = CeilingDivide(length, pieces);
  const int64_t together = pieces > 1 ? 1 : std::min(rows, kBlockTerms / length);
  int64_t runs_left = 0;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t first = 0; first < length; first += piece) {
      if (runs_left == 0) {
        blocks.push_back({static_cast<int64_t>(runs.size()), 0});
        runs_left = together;
      }
      runs.push_back({row * pitch + first, first_term + row * term_pitch + first,
                      std::min(piece, length - first)});
      ++blocks.back().runs;
      --runs_left;
    }
}

}  // namespace tfkd
