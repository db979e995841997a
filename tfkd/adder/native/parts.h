// Results by the part of their windows that lies inside the image. Beyond it every input is 0, so
// that what it adds is a constant, or nothing, and takes no work.

#ifndef TFKD_ADDER_NATIVE_PARTS_H_
#define TFKD_ADDER_NATIVE_PARTS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tfkd {

// An axis: the window of result i covers [start + i * step, start + i * step + taps) of `size`.
struct Axis {
  int64_t results, taps, step, start, size;
};

// Neighbouring results of an axis, [first, end), whose windows have the same taps inside.
struct Span {
  int64_t first, end;
  int64_t first_tap, end_tap;

  int64_t Count() const { return end - first; }
  int64_t Taps() const { return end_tap - first_tap; }
};

// A rectangle of results that see the same part of the kernel.
struct Part {
  Span rows, columns;

  bool Sees(int64_t row_tap, int64_t column_tap) const {
    return rows.first_tap <= row_tap && row_tap < rows.end_tap &&
           columns.first_tap <= column_tap && column_tap < columns.end_tap;
  }
};

std::vector<Span> SpansOf(const Axis& axis);

// Whether these rows are cut into parts of few columns too, for which there are enough of them. The
// others see taps that leave the image sideways, so that their input is to be padded.
bool AreCut(const Span& rows);

// The parts of all results, row by row. `taps` is the width of the kernel.
std::vector<Part> PartsOf(const std::vector<Span>& rows, const std::vector<Span>& columns,
                          int64_t taps);

// The pixels of a band of rows, part by part, and row by row in each.
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

#endif  // TFKD_ADDER_NATIVE_PARTS_H_
