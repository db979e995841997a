// The pixels of a band of rows, in the order in which they are computed.

#ifndef TFKD_ADDER_NATIVE_PIXELS_H_
#define TFKD_ADDER_NATIVE_PIXELS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parts.h"

namespace tfkd {

// Part by part, and row by row in each.
struct Pixels {
  // Where those of a part are in the lists.
  struct Piece {
    int64_t place, count;
  };

  // Notes whose pixels the lists hold from now on: those of the rows [first, end) of any image.
  // Returns whether they are to be filled for it.
  bool Renew(int64_t first, int64_t end) {
    const bool other = first != first_ || end != end_;
    first_ = first;
    end_ = end;
    return other;
  }

  // Fills the lists for the rows [first, end) of the parts, with window(part, row, column) and
  // number(row, column).
  template <typename Window, typename Number>
  void Fill(const std::vector<Part>& parts, int64_t first, int64_t end, const Window& window,
            const Number& number) {
    pieces.clear();
    windows.clear();
    numbers.clear();
    const int64_t columns = parts.empty() ? 0 : parts.back().columns.end;
    windows.reserve((end - first) * columns);
    numbers.reserve((end - first) * columns);
    for (const Part& part : parts) {
      const int64_t place = windows.size(), bottom = std::min(end, part.rows.end);
      for (int64_t i = std::max(first, part.rows.first); i < bottom; ++i)
        for (int64_t j = part.columns.first; j < part.columns.end; ++j) {
          windows.push_back(window(part, i, j));
          numbers.push_back(number(i, j));
        }
      pieces.push_back({place, static_cast<int64_t>(windows.size()) - place});
    }
  }

  std::vector<Piece> pieces;  // By part.
  // Of each pixel: where the taps that it sees start, in floats, and its number in the band.
  std::vector<int64_t> windows, numbers;

 private:
  int64_t first_ = 0, end_ = 0;
};

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_PIXELS_H_
