// Border regions: results grouped by the taps of their windows that lie inside the image. The other
// taps see zeros: they add a constant, or nothing, and are left out of the loops.

#ifndef TFKD_ADDER_NATIVE_BORDER_REGIONS_H_
#define TFKD_ADDER_NATIVE_BORDER_REGIONS_H_

#include <cstdint>
#include <vector>

namespace tfkd {

// An axis: the window of result i covers [start + i * step, start + i * step + taps) of `size`.
struct Axis {
  int64_t results, taps, step, start, size;
};

// Neighboring results of an axis, [first, end), whose windows have the same taps inside.
struct Span {
  int64_t first, end;
  int64_t first_tap, end_tap;

  int64_t Count() const { return end - first; }
  int64_t Taps() const { return end_tap - first_tap; }
};

// A rectangle of results whose windows have the same taps inside: a border, a corner or the middle.
struct Region {
  Span rows, columns;

  bool Sees(int64_t row_tap, int64_t column_tap) const {
    return rows.first_tap <= row_tap && row_tap < rows.end_tap &&
           columns.first_tap <= column_tap && column_tap < columns.end_tap;
  }
};

std::vector<Span> SpansOf(const Axis& axis);

// Whether rows are cut at the left and right border as well, which pays where there are enough of
// them. Other rows keep the taps that leave the image sideways, so their input is padded there.
bool AreCut(const Span& rows);

// The regions of all results, row by row. `taps` is the width of the kernel.
std::vector<Region> RegionsOf(const std::vector<Span>& rows, const std::vector<Span>& columns,
                              int64_t taps);

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_BORDER_REGIONS_H_
