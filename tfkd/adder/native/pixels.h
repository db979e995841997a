// The pixels of a band, in the order in which they are computed.

#ifndef TFKD_ADDER_NATIVE_PIXELS_H_
#define TFKD_ADDER_NATIVE_PIXELS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "bands.h"
#include "border_regions.h"

namespace tfkd {

// Region by region, image by image in each, and row by row. Neighbors in this order make a tile: so
// small images fill large tiles together, and more pixels use a filter while it is in the
// first-level cache.
struct Pixels {
  // The place of a region's pixels in the lists.
  struct Piece {
    int64_t place, count;
  };

  // Notes the band that the lists are for. Returns whether they have to be filled for it: they fit
  // every band of the same rows, whichever its images.
  bool Renew(const Band& band) {
    const bool other = !band.SameRowsAs(band_);
    band_ = band;
    return other;
  }

  // Fills the lists for the rows [first, end) of the regions of some images, with
  // window(region, image, row, column) and number(image, row, column).
  template <typename Window, typename Number>
  void Fill(const std::vector<Region>& regions, int64_t images, int64_t first, int64_t end,
            const Window& window, const Number& number) {
    pieces.clear();
    windows.clear();
    numbers.clear();
    const int64_t columns = regions.empty() ? 0 : regions.back().columns.end;
    windows.reserve(images * (end - first) * columns);
    numbers.reserve(images * (end - first) * columns);
    for (const Region& region : regions) {
      const int64_t place = windows.size();
      const int64_t top = std::max(first, region.rows.first);
      const int64_t bottom = std::min(end, region.rows.end);
      for (int64_t image = 0; image < images; ++image)
        for (int64_t i = top; i < bottom; ++i)
          for (int64_t j = region.columns.first; j < region.columns.end; ++j) {
            windows.push_back(window(region, image, i, j));
            numbers.push_back(number(image, i, j));
          }
      pieces.push_back({place, static_cast<int64_t>(windows.size()) - place});
    }
  }

  std::vector<Piece> pieces;  // By region.
  // By pixel: the offset of the taps that it sees, in floats, and its number in the band.
  std::vector<int64_t> windows, numbers;

 private:
  Band band_ = {};
};

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_PIXELS_H_
