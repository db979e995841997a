// Bands: how the rows of all images are cut, so that a thread copies the input of one at a time.

#ifndef TFKD_ADDER_NATIVE_BANDS_H_
#define TFKD_ADDER_NATIVE_BANDS_H_

#include <algorithm>
#include <cstdint>

namespace tfkd {

// The rows [first, end) of an image, or all rows of several.
struct Band {
  int64_t image, images, first, end;

  bool SameRowsAs(const Band& other) const {
    return images == other.images && first == other.first && end == other.end;
  }
};

// The size of pieces of at most `most`, as even as can be; 1 where there is nothing to cut.
inline int64_t EvenPiece(int64_t total, int64_t most) {
  if (total <= 1 || most <= 1) return 1;
  const int64_t pieces = (total + most - 1) / most;
  return (total + pieces - 1) / pieces;
}

// The images of a band, 0 where not even one fits: up to `fitting`, as long as their results (of
// `results` floats an image, in a panel) take at most `most`; one where a single image takes more.
inline int64_t ImagesOfBand(int64_t fitting, int64_t results, int64_t most) {
  return std::min(fitting, std::max<int64_t>(1, most / results));
}

// Calls function(band) for the bands of a range of the rows of all images, of at most `most` rows
// each. Bands of several images are about even, so that few kinds of them have to be listed.
template <typename Function>
void ForEachBand(int64_t first, int64_t end, int64_t rows_of_image, int64_t most,
                 const Function& function) {
  while (first < end) {
    const int64_t image = first / rows_of_image, row = first % rows_of_image;
    const int64_t whole = row == 0 ? (end - first) / rows_of_image : 0;
    const int64_t images = EvenPiece(whole, most / rows_of_image);
    const int64_t last = std::min({rows_of_image, row + most, row + end - first});
    const Band band = {image, images, row, last};
    function(band);
    first += images * (band.end - band.first);
  }
}

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_BANDS_H_
