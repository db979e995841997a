// The pixels of a band, in the order in which they are computed.

#ifndef TFKD_ADDER_NATIVE_PIXELS_H_
#define TFKD_ADDER_NATIVE_PIXELS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "bands.h"
#include "parts.h"

namespace tfkd {

// Part by part, image by image in each, and row by row. Neighbouring pixels make a tile: so those
// of small images fill larger tiles, and more of them use a filter while it is in the first-level
// cache.
struct Pixels {
  // Where those of a part are in the lists.
  struct Piece {
    int64_t place, count;
  };

  // Notes whose pixels the lists hold from now on: those of a band, wherever its images are.
  // Returns whether they are to be filled for it.
  bool Renew(const Band& band) {
    const bool other = !band.SameRowsAs(band_);
    band_ = band;
    return other;
  }

  // Fills the lists for the rows [first, end) of the parts of some images, with
  // window(part, image, row, column) and number(image, row, column).
  template <typename Window, typename Number>
  void Fill(const std::vector<Part>& parts, int64_t images, int64_t first, int64_t end,
            const Window& window, const Number& number) {
    pieces.clear();
    windows.clear();
    numbers.clear();
    const int64_t columns = parts.empty() ? 0 : parts.back().columns.end;
    windows.reserve(images * (end - first) * columns);
    numbers.reserve(images * (end - first) * columns);
    for (const Part& part : parts) {
      const int64_t place = windows.size();
      const int64_t top = std::max(first, part.rows.first), bottom = std::min(end, part.rows.end);
      for (int64_t image = 0; image < images; ++image)
        for (int64_t i = top; i < bottom; ++i)
          for (int64_t j = part.columns.first; j < part.columns.end; ++j) {
            windows.push_back(window(part, image, i, j));
            numbers.push_back(number(image, i, j));
          }
      pieces.push_back({place, static_cast<int64_t>(windows.size()) - place});
    }
  }

  std::vector<Piece> pieces;  // By part.
  // Of each pixel: where the taps that it sees start, in floats, and its number in the band.
  std::vector<int64_t> windows, numbers;

 private:
  Band band_ = {};
};

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_PIXELS_H_
