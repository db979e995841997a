// Input gradient: a pixel gathers from all outputs that saw it, so that every result is written by
// one thread and no sum is scattered.
//
// With stride s, an input row h with h + pad = a (mod s) is seen by the kernel rows a, a + s, ...
// only; the same goes for columns. Pixels of the same remainder are a phase: they are sums over the
// same taps of the kernel, and over a window of the output gradient that moves on by one from pixel
// to pixel. Beyond the border a window sees gradients of 0; these still make NaN of a NaN filter
// where their taps are not left out.

#include <algorithm>
#include <vector>

#include "bands.h"
#include "border_regions.h"
#include "buffer.h"
#include "kernels.h"
#include "panels.h"
#include "pixels.h"
#include "prefetcher.h"
#include "reduction.h"
#include "simd_dispatch.h"
#include "tiling.h"

namespace tfkd {
namespace {

// Gradient rows that a thread copies at once should stay in its second-level cache.
constexpr int64_t kBandFloats = 32 * 1024;

int64_t FloorDivide(int64_t value, int64_t divisor) {
  return (value >= 0 ? value : value - divisor + 1) / divisor;
}

// The pixels of an axis that the same taps of the kernel see.
struct Phase {
  Phase(int64_t remainder, int64_t size, int64_t kernel, int64_t stride, int64_t pad)
      : remainder(remainder),
        taps(remainder < kernel ? (kernel - remainder + stride - 1) / stride : 0),
        first((remainder - pad % stride + stride) % stride),
        count(first < size ? (size - first + stride - 1) / stride : 0),
        // The last output that sees the first pixel; it does so by the kernel's first tap.
        last_output((first + pad - remainder) / stride) {}

  // The windows of the pixels on an axis of `outputs`.
  Axis Sees(int64_t outputs) const { return {count, taps, 1, last_output - taps + 1, outputs}; }

  // The number of pixels of the phase before a place of the axis.
  int64_t Before(int64_t place, int64_t stride) const {
    return std::max<int64_t>(0, (place - first + stride - 1) / stride);
  }

  int64_t remainder, taps, first, count, last_output;
};

std::vector<Phase> PhasesOf(int64_t size, int64_t kernel, int64_t stride, int64_t pad) {
  std::vector<Phase> phases;
  for (int64_t remainder = 0; remainder < stride; ++remainder)
    phases.emplace_back(remainder, size, kernel, stride, pad);
  return phases;
}

class Gatherer {
 public:
  Gatherer(const Geometry& sizes, const float* input, const float* filter, const float* gradient,
           float* result, const Parallel& parallel)
      : s_(sizes),
        input_(input),
        gradient_(gradient),
        result_(result),
        level_(CurrentLevel()),
        panels_(PanelsOf(s_.channels, level_)),
        first_column_(FloorDivide(s_.pad_left - s_.kernel_width + 1, s_.stride_width)),
        columns_(FloorDivide(s_.width - 1 + s_.pad_left, s_.stride_width) - first_column_ + 1),
        packed_(s_.kernel_height * s_.kernel_width * s_.filters * TotalWidth(panels_)) {
    int64_t packed = 0;
    for (const Phase& rows :
         PhasesOf(s_.height, s_.kernel_height, s_.stride_height, s_.pad_top))
      for (const Phase& columns :
           PhasesOf(s_.width, s_.kernel_width, s_.stride_width, s_.pad_left)) {
        const int64_t row = columns.taps * s_.filters;
        phases_.push_back({rows, columns, rows.taps * row, packed,
                           RegionsOf(SpansOf(rows.Sees(s_.output_height)),
                                     SpansOf(columns.Sees(s_.output_width)), columns.taps)});
        packed += phases_.back().terms * TotalWidth(panels_);
        for (const Region& region : phases_.back().regions)
          phases_.back().reductions.emplace_back(
              region.rows.Taps(), region.columns.Taps() * s_.filters, columns_ * s_.filters,
              region.rows.first_tap * row + region.columns.first_tap * s_.filters, row);
      }
    parallel(panels_.size(), s_.kernel_height * s_.kernel_width * s_.filters * level_.width * 4,
             [&](int64_t first, int64_t end) {
               for (int64_t i = first; i < end; ++i) Pack(filter, panels_[i]);
             });
    const int64_t rows = kBandFloats / std::max<int64_t>(1, columns_ * s_.filters);
    const int64_t images = ImagesOfBand(rows / OutputRows(s_.height),
                                        s_.height * s_.width * panels_[0].width, kBandFloats);
    band_rows_ = images > 0
                     ? images * s_.height
                     : std::min(s_.height, std::max<int64_t>(
                                               1, rows * s_.stride_height - s_.kernel_height + 1));
  }

  // Input rows, counted over all images.
  void Rows(int64_t first, int64_t end) const {
    Scratch scratch(*this, std::min(band_rows_, end - first));
    ForEachBand(first, end, s_.height, band_rows_, [&](const Band& band) {
      const Outputs outputs = OutputsOf(band, &scratch);
      int64_t tiles = 0;
      for (size_t i = 0; i < phases_.size(); ++i)
        tiles += List(phases_[i], band, outputs, &scratch.pixels[i]);
      const int64_t row = s_.width * s_.channels, all = s_.batch * s_.height * row;
      const int64_t place = (band.image * s_.height + band.first) * row;
      const int64_t count = band.images * (band.end - band.first) * row;
      Prefetcher prefetchers[] = {
          {input_, all, place + count, count, tiles},
          {result_, all, place + count, count, tiles},
      };
      for (size_t i = 0; i < phases_.size(); ++i)
        Compute(phases_[i], scratch.pixels[i], place, outputs.values, prefetchers, &scratch);
    });
  }

 private:
  struct Scratch {
    Scratch(const Gatherer& owner, int64_t rows)
        : outputs(owner.OutputRows(rows) * owner.columns_ * owner.s_.filters),
          // For the last panel, whose vectors would reach beyond the last channel of a pixel.
          own(Partial(owner, rows)),
          partial(Partial(owner, rows)),
          pixels(owner.phases_.size()) {}

    static int64_t Partial(const Gatherer& owner, int64_t rows) {
      const Panel& last = owner.panels_.back();
      return last.valid < last.width ? rows * owner.s_.width * last.width : 0;
    }

    Buffer outputs, own, partial;
    std::vector<Pixels> pixels;  // By phase.
  };

  // The most output rows that see some rows of an image, or all those of several.
  int64_t OutputRows(int64_t rows) const {
    const int64_t seen = std::min(rows, s_.height) + s_.kernel_height;
    return std::max<int64_t>(1, rows / s_.height) * std::min(s_.output_height, seen);
  }

  // The pixels whose rows are of one phase and whose columns are of another.
  struct PhasePair {
    Phase rows, columns;
    int64_t terms, packed;  // Of the filters: terms in a panel, and offset of the first panel.
    std::vector<Region> regions;
    std::vector<Reduction> reductions;  // By region.
  };

  // Gradients of output rows from `first_row` on and columns from first_column_ on. Images are
  // `rows` rows apart.
  struct Outputs {
    int64_t first_row, rows;
    const float* values;
  };

  // Lays out a panel for each phase: for each term, a value for each channel. Windows run forward
  // through the gradient, hence backward through the kernel.
  void Pack(const float* filter, const Panel& panel) {
    for (const PhasePair& phase : phases_) {
      float* to = packed_.data() + phase.packed + phase.terms * panel.first;
      for (int64_t t = phase.rows.taps - 1; t >= 0; --t)
        for (int64_t u = phase.columns.taps - 1; u >= 0; --u) {
          const int64_t tap =
              (phase.rows.remainder + t * s_.stride_height) * s_.kernel_width +
              phase.columns.remainder + u * s_.stride_width;
          const float* from = filter + (tap * s_.channels + panel.first) * s_.filters;
          for (int64_t f = 0; f < s_.filters; ++f, to += panel.width) {
            for (int64_t c = 0; c < panel.valid; ++c) to[c] = from[c * s_.filters + f];
            for (int64_t c = panel.valid; c < panel.width; ++c) to[c] = 0.0f;
          }
        }
    }
  }

  Outputs OutputsOf(const Band& band, Scratch* scratch) const {
    const int64_t first = std::max<int64_t>(
        0, FloorDivide(band.first + s_.pad_top - s_.kernel_height + 1, s_.stride_height));
    const int64_t end = 1 + std::min(s_.output_height - 1,
                                     FloorDivide(band.end - 1 + s_.pad_top, s_.stride_height));
    const int64_t size = s_.output_height * s_.output_width * s_.filters;
    const float* image = gradient_ + band.image * size;
    if (first_column_ == 0 && columns_ == s_.output_width)
      return {first, s_.output_height, image + first * s_.output_width * s_.filters};
    const int64_t left = std::max<int64_t>(0, -first_column_);
    const int64_t inside = std::max(left, std::min(columns_, s_.output_width - first_column_));
    float* row = scratch->outputs.data();
    for (int64_t i = 0; i < band.images; ++i, image += size)
      for (int64_t h = first; h < end; ++h, row += columns_ * s_.filters) {
        const float* from = image + (h * s_.output_width + first_column_ + left) * s_.filters;
        std::fill_n(row, left * s_.filters, 0.0f);
        std::copy_n(from, (inside - left) * s_.filters, row + left * s_.filters);
        std::fill_n(row + inside * s_.filters, (columns_ - inside) * s_.filters, 0.0f);
      }
    return {first, end - first, scratch->outputs.data()};
  }

  // Lists the pixels of a phase in a band, and returns the number of their tiles.
  int64_t List(const PhasePair& phase, const Band& band, const Outputs& outputs,
               Pixels* pixels) const {
    const Axis rows = phase.rows.Sees(s_.output_height);
    const Axis columns = phase.columns.Sees(s_.output_width);
    if (pixels->Renew(band))
      pixels->Fill(
          phase.regions, band.images, phase.rows.Before(band.first, s_.stride_height),
          phase.rows.Before(band.end, s_.stride_height),
          [&](const Region& region, int64_t image, int64_t i, int64_t j) {
            const int64_t row =
                image * outputs.rows + rows.start + i + region.rows.first_tap - outputs.first_row;
            const int64_t column = columns.start + j + region.columns.first_tap - first_column_;
            return (row * columns_ + column) * s_.filters;
          },
          [&](int64_t image, int64_t i, int64_t j) {
            const int64_t h = phase.rows.first + i * s_.stride_height - band.first;
            return (image * (band.end - band.first) + h) * s_.width + phase.columns.first +
                   j * s_.stride_width;
          });
    return panels_.size() * CountTiles(*pixels, phase.reductions, Most(panels_[0]));
  }

  // Computes the pixels of a phase in a band, whose first float is at `place` of input and result.
  void Compute(const PhasePair& phase, const Pixels& pixels, int64_t place, const float* outputs,
               Prefetcher (&prefetchers)[2], Scratch* scratch) const {
    for (const Panel& panel : panels_) {
      const bool whole = panel.valid == panel.width;
      const float* input = input_ + place + panel.first;
      float* result = result_ + place + panel.first;
      if (!whole)
        for (const int64_t pixel : pixels.numbers) {
          float* own = scratch->own.data() + pixel * panel.width;
          std::copy_n(input + pixel * s_.channels, panel.valid, own);
          std::fill(own + panel.valid, own + panel.width, 0.0f);
        }
      Tile tile = {};
      tile.values = outputs;
      tile.panel = packed_.data() + phase.packed + phase.terms * panel.first;
      tile.sums = whole ? result : scratch->partial.data();
      tile.own = whole ? input : scratch->own.data();
      tile.step = whole ? s_.channels : panel.width;
      ComputeTiles(
          pixels, phase.reductions, Most(panel), level_.gradient[panel.vectors - 1], tile,
          [](size_t, Tile*) {},
          [&] {
            for (Prefetcher& each : prefetchers) each.Step();
          });
      if (!whole)
        for (const int64_t pixel : pixels.numbers)
          std::copy_n(tile.sums + pixel * panel.width, panel.valid, result + pixel * s_.channels);
    }
  }

  int64_t Most(const Panel& panel) const { return level_.gradient_pixels[panel.vectors - 1]; }

  const Geometry& s_;
  const float* const input_;
  const float* const gradient_;
  float* const result_;
  const Level& level_;
  const std::vector<Panel> panels_;
  const int64_t first_column_, columns_;
  Buffer packed_;
  std::vector<PhasePair> phases_;  // By row phase, then column phase.
  int64_t band_rows_;
};

}  // namespace

void InputGradient(const Geometry& s, const float* input, const float* filter,
                   const float* gradient, float* input_gradient, const Parallel& parallel) {
  const int64_t values = s.batch * s.height * s.width * s.channels;
  if (values == 0) return;
  if (s.filters == 0) {
    std::fill_n(input_gradient, values, 0.0f);
    return;
  }
  const Gatherer gatherer(s, input, filter, gradient, input_gradient, parallel);
  // Each value takes part in about this many outputs of each filter.
  const int64_t taps = (s.kernel_height * s.kernel_width + s.stride_height * s.stride_width - 1) /
                       (s.stride_height * s.stride_width);
  parallel(s.batch * s.height, 2 * s.width * s.channels * taps * s.filters,
           [&](int64_t first, int64_t end) { gatherer.Rows(first, end); });
}

}  // namespace tfkd
