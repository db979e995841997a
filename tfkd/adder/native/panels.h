// Panels: how the results of a pixel (filters, or channels for the gradient) are cut into a few
// vectors each.

#ifndef TFKD_ADDER_NATIVE_PANELS_H_
#define TFKD_ADDER_NATIVE_PANELS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "simd_dispatch.h"

namespace tfkd {

// Neighboring results that are computed together.
struct Panel {
  int64_t first;
  int64_t valid;  // Results; fewer than `width` at the end.
  int64_t width;  // Floats, whole vectors.
  int vectors;
};

inline std::vector<Panel> PanelsOf(int64_t results, const Level& level) {
  std::vector<Panel> panels;
  for (int64_t first = 0; first < results; first += panels.back().width) {
    const int64_t left = results - first;
    const int vectors = static_cast<int>(
        std::min<int64_t>(Level::kMaxVectors, (left + level.width - 1) / level.width));
    const int64_t width = vectors * level.width;
    panels.push_back({first, std::min(left, width), width, vectors});
  }
  return panels;
}

inline int64_t TotalWidth(const std::vector<Panel>& panels) {
  return panels.empty() ? 0 : panels.back().first + panels.back().width;
}

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_PANELS_H_
