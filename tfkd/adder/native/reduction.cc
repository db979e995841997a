#include "reduction.h"

#include <algorithm>

namespace tfkd {
namespace {

int64_t CeilingDivide(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

}  // namespace

Reduction::Reduction(int64_t rows, int64_t length, int64_t pitch) : terms(rows * length) {
  if (terms == 0) return;
  // Either several rows make a block, or several blocks a row; as even as can be.
  const int64_t pieces = CeilingDivide(length, kBlockTerms);
  const int64_t piece = CeilingDivide(length, pieces);
  const int64_t together = pieces > 1 ? 1 : std::min(rows, kBlockTerms / length);
  int64_t terms_before = 0, runs_left = 0;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t first = 0; first < length; first += piece) {
      if (runs_left == 0) {
        blocks.push_back({terms_before, static_cast<int64_t>(runs.size()), 0});
        runs_left = together;
      }
      runs.push_back({row * pitch + first, std::min(piece, length - first)});
      ++blocks.back().runs;
      --runs_left;
      terms_before += runs.back().length;
    }
}

}  // namespace tfkd
