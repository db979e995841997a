// Results by the part of their windows that lies inside the image. Beyond it every input is 0, so
// that what it adds is a constant, or nothing, and need take no work.

#ifndef TFKD_ADDER_NATIVE_PARTS_H_
#define TFKD_ADDER_NATIVE_PARTS_H_

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

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_PARTS_H_
