// Forward: -sum |x - f| = sum x + sum f - 2 sum max(x, f), so that the inner loop is a maximum and
// an addition. The sums of x over a window are made of sums over pixels, those of f once.
//
// Where x and f share a large offset, the difference of these sums would lose what matters. So a
// constant is first subtracted from both, one for each channel: |(x - s) - (f - s)| = |x - f|, with
// a padded pixel being -s.

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "level.h"
#include "panels.h"
#include "reduction.h"

namespace tfkd {
namespace {

// Input rows that a thread copies at once should stay in its second-level cache.
constexpr int64_t kBandFloats = 32 * 1024;

// The filters, shifted and laid out for the inner loop.
struct PackedFilter {
  PackedFilter(const Geometry& sizes, const float* filter, const std::vector<Panel>& panels,
               const Level& level, const Parallel& parallel);

  // Panel by panel, for each term a value for each filter of the panel; then 0s.
  Buffer values;
  Buffer sums;   // Of each filter.
  Buffer shift;  // Of each channel.
};

// The constant to subtract: the mean, rounded so coarsely that it is 0 for filters which lie about
// 0, and that subtracting it costs no digits: a multiple of a power of two not below the spread.
float ShiftOf(const Geometry& s, const float* filter, int64_t channel, const Level& level) {
  const int64_t taps = s.kernel_height * s.kernel_width;
  const auto mean_of = [&](float center, bool absolute) {
    double sum = 0.0;
    for (int64_t tap = 0; tap < taps; ++tap)
      sum += level.deviations(filter + (tap * s.channels + channel) * s.filters, s.filters, center,
                              absolute);
    return sum / (taps * s.filters);
  };
  const double mean = mean_of(0.0f, false);
  const double spread = mean_of(static_cast<float>(mean), true);
  if (!std::isfinite(mean) || !std::isfinite(spread)) return 0.0f;
  if (spread == 0.0) return static_cast<float>(mean);
  const double unit = std::exp2(std::ceil(std::log2(spread)));
  return static_cast<float>(unit * std::nearbyint(mean / unit));
}

PackedFilter::PackedFilter(const Geometry& s, const float* filter,
                           const std::vector<Panel>& panels, const Level& level,
                           const Parallel& parallel)
    : values(s.kernel_height * s.kernel_width * s.channels * TotalWidth(panels)),
      sums(TotalWidth(panels)),
      shift(s.channels) {
  const int64_t taps = s.kernel_height * s.kernel_width, terms = taps * s.channels;
  parallel(s.channels, 4 * taps * s.filters, [&](int64_t first, int64_t end) {
    for (int64_t c = first; c < end; ++c) {
      const float own = shift.data()[c] = ShiftOf(s, filter, c, level);
      for (const Panel& panel : panels)
        for (int64_t k = c; k < terms; k += s.channels) {
          const float* from = filter + k * s.filters + panel.first;
          float* to = values.data() + terms * panel.first + k * panel.width;
          for (int64_t f = 0; f < panel.valid; ++f) to[f] = from[f] - own;
          for (int64_t f = panel.valid; f < panel.width; ++f) to[f] = 0.0f;
        }
    }
  });
  parallel(panels.size(), terms * level.width, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      const Panel& panel = panels[i];
      const float* from = values.data() + terms * panel.first;
      std::vector<double> totals(panel.width, 0.0);
      for (int64_t k = 0; k < terms; ++k, from += panel.width)
        for (int64_t f = 0; f < panel.width; ++f) totals[f] += from[f];
      std::copy(totals.begin(), totals.end(), sums.data() + panel.first);
    }
  });
}

// The input rows that a band of output rows sees, padded and shifted. Of a kernel that is one pixel
// high or wide, only the rows or columns that are used are kept.
struct Window {
  explicit Window(const Geometry& s)
      : row_stride(s.kernel_height == 1 ? 1 : s.stride_height),
        column_stride(s.kernel_width == 1 ? 1 : s.stride_width),
        row_step(s.stride_height / row_stride),
        column_step(s.stride_width / column_stride),
        columns((s.output_width - 1) * column_stride + s.kernel_width) {}

  int64_t Rows(const Geometry& s, int64_t output_rows) const {
    return (output_rows - 1) * row_stride + s.kernel_height;
  }

  int64_t row_stride, column_stride;  // From one output to the next, in kept rows and columns.
  int64_t row_step, column_step;      // From one kept row or column to the next, in the input.
  int64_t columns;
};

class Forwarder {
 public:
  Forwarder(const Geometry& sizes, const float* input, const float* filter, float* output,
            const Parallel& parallel)
      : s_(sizes),
        input_(input),
        output_(output),
        level_(CurrentLevel()),
        panels_(PanelsOf(s_.filters, level_)),
        packed_(s_, filter, panels_, level_, parallel),
        window_(s_),
        reduction_(s_.kernel_height, s_.kernel_width * s_.channels,
                   window_.columns * s_.channels) {
    const int64_t row = window_.columns * s_.channels;
    const int64_t rows = std::max<int64_t>(1, kBandFloats / row - s_.kernel_height + 1);
    band_rows_ = std::min(s_.output_height, std::max<int64_t>(1, rows / window_.row_stride));
  }

  // Output rows, counted over all images.
  void Rows(int64_t first, int64_t end) const {
    Scratch scratch(*this, std::min(band_rows_, end - first));
    ForEachBand(first, end, s_.output_height, band_rows_,
                [&](int64_t image, int64_t first, int64_t end) {
                  const int64_t place = (image * s_.output_height + first) * s_.output_width;
                  Copy(image, first, end - first, &scratch);
                  AddUp(end - first, &scratch);
                  Compute(end - first, output_ + place * s_.filters,
                          image * s_.height + end * s_.stride_height, &scratch);
                });
  }

 private:
  struct Scratch {
    Scratch(const Forwarder& owner, int64_t rows)
        : cells(owner.window_.Rows(owner.s_, rows) * owner.window_.columns * owner.s_.channels),
          cell_sums(owner.window_.Rows(owner.s_, rows) * owner.window_.columns),
          column_sums(owner.window_.columns),
          pixel_sums(rows * owner.s_.output_width),
          // What a whole vector would write beyond the last filter of a pixel.
          partial(owner.panels_.back().valid < owner.panels_.back().width
                      ? rows * owner.s_.output_width * owner.panels_.back().width
                      : 0),
          zeros(owner.s_.channels),
          windows(rows * owner.s_.output_width) {
      std::fill_n(zeros.data(), owner.s_.channels, 0.0f);
    }

    Buffer cells, cell_sums, column_sums, pixel_sums, partial, zeros;
    std::vector<const float*> windows;  // Where the window of each pixel starts.
  };

  void Copy(int64_t image, int64_t first_row, int64_t output_rows, Scratch* scratch) const {
    const int64_t columns = window_.columns, channels = s_.channels;
    const float* shift = packed_.shift.data();
    // Columns inside the image: w = column * step - pad with 0 <= w < width.
    const int64_t step = window_.column_step;
    const int64_t left = std::min(columns, (s_.pad_left + step - 1) / step);
    const int64_t inside =
        std::max(left, std::min(columns, (s_.width + s_.pad_left + step - 1) / step));
    for (int64_t row = 0; row < window_.Rows(s_, output_rows); ++row) {
      const int64_t h = first_row * s_.stride_height + row * window_.row_step - s_.pad_top;
      float* cells = scratch->cells.data() + row * columns * channels;
      float* sums = scratch->cell_sums.data() + row * columns;
      const auto pad = [&](int64_t from, int64_t to) {
        level_.shift(scratch->zeros.data(), 0, shift, to - from, channels, cells + from * channels,
                     sums + from);
      };
      if (h < 0 || h >= s_.height) {
        pad(0, columns);
        continue;
      }
      const int64_t w = left * step - s_.pad_left;
      pad(0, left);
      level_.shift(input_ + ((image * s_.height + h) * s_.width + w) * channels, step * channels,
                   shift, inside - left, channels, cells + left * channels, sums + left);
      pad(inside, columns);
    }
  }

  // The sum of x over the window of each output.
  void AddUp(int64_t output_rows, Scratch* scratch) const {
    float* column_sums = scratch->column_sums.data();
    for (int64_t i = 0; i < output_rows; ++i) {
      const float* cells = scratch->cell_sums.data() + i * window_.row_stride * window_.columns;
      std::copy_n(cells, window_.columns, column_sums);
      for (int64_t a = 1; a < s_.kernel_height; ++a)
        for (int64_t w = 0; w < window_.columns; ++w)
          column_sums[w] += cells[a * window_.columns + w];
      float* pixels = scratch->pixel_sums.data() + i * s_.output_width;
      std::fill_n(pixels, s_.output_width, 0.0f);
      for (int64_t b = 0; b < s_.kernel_width; ++b)
        for (int64_t j = 0; j < s_.output_width; ++j)
          pixels[j] += column_sums[j * window_.column_stride + b];
    }
  }

  // `next_row` is where the input of the next band starts, counted over all images.
  void Compute(int64_t rows, float* output, int64_t next_row, Scratch* scratch) const {
    const int64_t pixels = rows * s_.output_width, row = s_.width * s_.channels;
    for (int64_t i = 0, pixel = 0; i < rows; ++i)
      for (int64_t j = 0; j < s_.output_width; ++j, ++pixel)
        scratch->windows[pixel] =
            scratch->cells.data() +
            (i * window_.row_stride * window_.columns + j * window_.column_stride) * s_.channels;
    Ahead ahead(input_, s_.batch * s_.height * row, next_row * row,
                pixels * s_.stride_height * s_.stride_width * s_.channels,
                panels_.size() * reduction_.blocks.size() *
                    TilesOf(pixels, level_.forward_pixels[panels_[0].vectors - 1]));
    for (const Panel& panel : panels_) {
      const bool whole = panel.valid == panel.width;
      float* sums = whole ? output + panel.first : scratch->partial.data();
      const int64_t sums_step = whole ? s_.filters : panel.width;
      for (const Block& block : reduction_.blocks) {
        Tile tile = {};
        tile.runs = reduction_.runs.data() + block.first_run;
        tile.run_count = block.runs;
        tile.panel = packed_.values.data() + reduction_.terms * panel.first +
                     block.first_term * panel.width;
        tile.sums_step = sums_step;
        tile.first = &block == &reduction_.blocks.front();
        tile.last = &block == &reduction_.blocks.back();
        tile.filter_sums = packed_.sums.data() + panel.first;
        const TileFunction* functions = level_.forward[panel.vectors - 1];
        ForEachTile(pixels, level_.forward_pixels[panel.vectors - 1],
                    [&](int64_t first, int64_t count) {
                      tile.windows = scratch->windows.data() + first;
                      tile.sums = sums + first * sums_step;
                      tile.pixel_sums = scratch->pixel_sums.data() + first;
                      ahead.Step();
                      functions[count - 1](tile);
                    });
      }
      if (!whole)
        for (int64_t pixel = 0; pixel < pixels; ++pixel)
          std::copy_n(sums + pixel * panel.width, panel.valid,
                      output + pixel * s_.filters + panel.first);
    }
  }

  const Geometry& s_;
  const float* const input_;
  float* const output_;
  const Level& level_;
  const std::vector<Panel> panels_;
  const PackedFilter packed_;
  const Window window_;
  const Reduction reduction_;
  int64_t band_rows_;
};

}  // namespace

void Forward(const Geometry& s, const float* input, const float* filter, float* output,
             const Parallel& parallel) {
  const int64_t pixels = s.batch * s.output_height * s.output_width;
  if (pixels * s.filters == 0) return;
  if (s.channels == 0) {
    std::fill_n(output, pixels * s.filters, 0.0f);
    return;
  }
  const Forwarder forwarder(s, input, filter, output, parallel);
  parallel(s.batch * s.output_height,
           s.output_width * s.kernel_height * s.kernel_width * s.channels * s.filters,
           [&](int64_t first, int64_t end) { forwarder.Rows(first, end); });
}

}  // namespace tfkd
