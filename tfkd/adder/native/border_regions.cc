#include "border_regions.h"

#include <algorithm>

namespace tfkd {
namespace {

// The border columns of this many rows fill a tile.
constexpr int64_t kLeastRows = 6;

}  // namespace

std::vector<Span> SpansOf(const Axis& axis) {
  std::vector<Span> spans;
  for (int64_t i = 0; i < axis.results; ++i) {
    const int64_t start = axis.start + i * axis.step;
    int64_t first_tap = std::max<int64_t>(0, -start);
    int64_t end_tap = std::min(axis.taps, axis.size - start);
    if (end_tap <= first_tap) first_tap = end_tap = 0;
    if (!spans.empty() && spans.back().first_tap == first_tap && spans.back().end_tap == end_tap)
      ++spans.back().end;
    else
      spans.push_back({i, i + 1, first_tap, end_tap});
  }
  return spans;
}

bool AreCut(const Span& rows) { return rows.Count() >= kLeastRows; }

std::vector<Region> RegionsOf(const std::vector<Span>& rows, const std::vector<Span>& columns,
                              int64_t taps) {
  const std::vector<Span> whole = {{0, columns.empty() ? 0 : columns.back().end, 0, taps}};
  std::vector<Region> regions;
  for (const Span& span : rows)
    for (const Span& each : AreCut(span) ? columns : whole) regions.push_back({span, each});
  return regions;
}

}  // namespace tfkd
