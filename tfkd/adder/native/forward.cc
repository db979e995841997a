// Forward: -sum |x - f| = sum x + sum f - 2 sum max(x, f), so that the inner loop is a maximum and
// an addition. The sums of x over a window are made of sums over pixels, those of f once.
//
// Where x and f share a large offset, these sums would cancel. So a shift is first subtracted from
// both, one for each channel: |(x - s) - (f - s)| = |x - f|, with a padded pixel being -s. Taps
// outside the image that are left out of the loops add a constant, -|f|.
//
// They also cancel where a patch is nearly a filter. A result that is small beside its filter, which
// it hardly ever is, is therefore formed once more, as a sum of absolute differences.

#include <algorithm>
#include <cmath>
#include <tuple>
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

// Input rows that a thread copies at once should stay in its second-level cache.
constexpr int64_t kBandFloats = 32 * 1024;

// Starting and ending large tiles does not pay for few terms, as 1x1 kernels may have.
constexpr int64_t kFewTerms = 32, kPixelsForFewTerms = 7;

// A result is near 0 if it is less than this part of the sum of its shifted |f|. What rounding adds
// to the others is then about as small beside them as it is beside a sum of absolute differences.
constexpr double kNear = 1.0 / 16;

// The filters, shifted and laid out for the inner loop.
struct PackedFilter {
  PackedFilter(const Geometry& sizes, const float* filter, const std::vector<Panel>& panels,
               const std::vector<Region>& regions, const Level& level, const Parallel& parallel);

  // Panel by panel, for each term a value for each filter of the panel; then 0s.
  Buffer values;
  // By region and filter: the sum of the shifted taps that are seen, less that of the other |f|; and
  // the latter alone, negative.
  Buffer sums, outside;
  Buffer near;           // By filter: the value above which a result is near 0.
  Buffer shift, padded;  // By channel: the shift, and the value of a shifted padded pixel.
  float padded_sum;      // Of `padded`, over the channels.

 private:
  void Pack(const Geometry& sizes, const float* filter, const Panel& panel,
            const std::vector<Region>& regions, const Level& level);
};

// The shift of a channel: the mean of its filters, rounded to a multiple of a power of two that is
// not below their spread. So it is 0 for filters around 0, and subtracting it costs no digits.
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
                           const std::vector<Panel>& panels, const std::vector<Region>& regions,
                           const Level& level, const Parallel& parallel)
    : values(s.kernel_height * s.kernel_width * s.channels * TotalWidth(panels)),
      sums(regions.size() * TotalWidth(panels)),
      outside(sums.size()),
      near(TotalWidth(panels)),
      shift(s.channels),
      padded(s.channels) {
  const int64_t taps = s.kernel_height * s.kernel_width;
  parallel(s.channels, 2 * taps * s.filters, [&](int64_t first, int64_t end) {
    for (int64_t c = first; c < end; ++c) shift.data()[c] = ShiftOf(s, filter, c, level);
  });
  std::fill_n(padded.data(), s.channels, 0.0f);
  level.shift(padded.data(), 0, shift.data(), 1, s.channels, padded.data(), &padded_sum);
  parallel(panels.size(), 4 * taps * s.channels * level.width, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) Pack(s, filter, panels[i], regions, level);
  });
}

void PackedFilter::Pack(const Geometry& s, const float* filter, const Panel& panel,
                        const std::vector<Region>& regions, const Level& level) {
  const int64_t taps = s.kernel_height * s.kernel_width;
  const float* from = filter + panel.first;
  float* to = values.data() + taps * s.channels * panel.first;
  std::vector<double> totals(regions.size() * panel.width), left_out(totals.size());
  std::vector<double> seen(panel.width), sizes(panel.width), unseen(panel.width);
  for (int64_t tap = 0; tap < taps; ++tap) {
    std::fill(seen.begin(), seen.end(), 0.0);
    std::fill(unseen.begin(), unseen.end(), 0.0);
    level.pack(from, s.filters, shift.data(), s.channels, panel.valid, panel.width, to, seen.data(),
               unseen.data(), sizes.data());
    for (int64_t f = 0; f < panel.valid; ++f) sizes[f] -= unseen[f];
    from += s.channels * s.filters;
    to += s.channels * panel.width;
    double *total = totals.data(), *missed = left_out.data();
    for (const Region& region : regions) {
      const bool sees = region.Sees(tap / s.kernel_width, tap % s.kernel_width);
      const auto& each = sees ? seen : unseen;
      for (int64_t f = 0; f < panel.width; ++f) *total++ += each[f];
      for (int64_t f = 0; f < panel.width; ++f) *missed++ += sees ? 0.0 : unseen[f];
    }
  }
  const int64_t step = sums.size() / regions.size();
  for (size_t region = 0; region < regions.size(); ++region) {
    const int64_t place = region * step + panel.first;
    // What is computed beyond the last filter is never near 0.
    std::fill_n(totals.begin() + region * panel.width + panel.valid, panel.width - panel.valid,
                -HUGE_VAL);
    std::copy_n(totals.data() + region * panel.width, panel.width, sums.data() + place);
    std::copy_n(left_out.data() + region * panel.width, panel.width, outside.data() + place);
  }
  for (int64_t f = 0; f < panel.valid; ++f)
    near.data()[panel.first + f] = static_cast<float>(-kNear * sizes[f]);
}

// The input rows that a band of output rows sees, padded at the sides and shifted. For a kernel of
// one row or column, only the rows or columns in use are kept.
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
        rows_(SpansOf(
            {s_.output_height, s_.kernel_height, s_.stride_height, -s_.pad_top, s_.height})),
        columns_(SpansOf(
            {s_.output_width, s_.kernel_width, s_.stride_width, -s_.pad_left, s_.width})),
        regions_(RegionsOf(rows_, columns_, s_.kernel_width)),
        packed_(s_, filter, panels_, regions_, level_, parallel),
        window_(s_) {
    const int64_t row = window_.columns * s_.channels, kernel_row = s_.kernel_width * s_.channels;
    for (const Region& region : regions_)
      reductions_.emplace_back(
          region.rows.Taps(), region.columns.Taps() * s_.channels, row,
          region.rows.first_tap * kernel_row + region.columns.first_tap * s_.channels, kernel_row);
    const int64_t images =
        ImagesOfBand(kBandFloats / (window_.Rows(s_, s_.output_height) * row),
                     s_.output_height * s_.output_width * panels_[0].width, kBandFloats);
    const int64_t rows = kBandFloats / row - s_.kernel_height + 1;
    band_rows_ = images > 0 ? images * s_.output_height
                            : std::max<int64_t>(1, rows / window_.row_stride);
  }

  // Output rows, counted over all images.
  void Rows(int64_t first, int64_t end) const {
    Scratch scratch(*this, std::min(band_rows_, end - first));
    ForEachBand(first, end, s_.output_height, band_rows_, [&](const Band& band) {
      Copy(band, &scratch);
      List(band, &scratch.pixels);
      AddUp(band, &scratch);
      Compute(band, &scratch);
    });
  }

 private:
  struct Scratch {
    // For a band of this many output rows.
    Scratch(const Forwarder& owner, int64_t rows)
        : Scratch(owner, rows, owner.KeptRows(rows) * owner.window_.columns) {}

    // The sums of cells outside the image are 0.
    Buffer cells, cell_sums, row_sums, pixel_sums, partial;
    Pixels pixels;

   private:
    Scratch(const Forwarder& owner, int64_t rows, int64_t kept)
        : cells(kept * owner.s_.channels),
          cell_sums(kept),
          row_sums(kept),
          pixel_sums(rows * owner.s_.output_width),
          // For the last panel, whose vectors would write beyond the last filter of a pixel.
          partial(owner.panels_.back().valid < owner.panels_.back().width
                      ? rows * owner.s_.output_width * owner.panels_.back().width
                      : 0) {}
  };

  // The input rows that some output rows of an image see, or all those of several.
  int64_t KeptRows(int64_t rows) const {
    const int64_t image = s_.output_height;
    return rows < image ? window_.Rows(s_, rows) : rows / image * window_.Rows(s_, image);
  }

  // Rows outside the image are not copied: no pixel sees them.
  void Copy(const Band& band, Scratch* scratch) const {
    const int64_t columns = window_.columns, channels = s_.channels;
    const float* shift = packed_.shift.data();
    // Columns inside the image: w = column * step - pad with 0 <= w < width.
    const int64_t step = window_.column_step;
    const int64_t left = std::min(columns, (s_.pad_left + step - 1) / step);
    const int64_t inside =
        std::max(left, std::min(columns, (s_.width + s_.pad_left + step - 1) / step));
    float *cells = scratch->cells.data(), *sums = scratch->cell_sums.data();
    const auto pad = [&](int64_t from, int64_t to) {
      for (int64_t w = from; w < to; ++w)
        std::copy_n(packed_.padded.data(), channels, cells + w * channels);
      std::fill(sums + from, sums + to, 0.0f);
    };
    const int64_t rows = window_.Rows(s_, band.end - band.first);
    for (int64_t image = band.image; image < band.image + band.images; ++image)
      for (int64_t row = 0; row < rows; ++row, cells += columns * channels, sums += columns) {
        const int64_t h = band.first * s_.stride_height + row * window_.row_step - s_.pad_top;
        if (h < 0 || h >= s_.height) {
          std::fill_n(sums, columns, 0.0f);
          continue;
        }
        const int64_t w = left * step - s_.pad_left;
        pad(0, left);
        level_.shift(input_ + ((image * s_.height + h) * s_.width + w) * channels, step * channels,
                     shift, inside - left, channels, cells + left * channels, sums + left);
        pad(inside, columns);
      }
  }

  void List(const Band& band, Pixels* pixels) const {
    if (!pixels->Renew(band)) return;
    const int64_t first = band.first, rows = band.end - first, kept = window_.Rows(s_, rows);
    pixels->Fill(
        regions_, band.images, first, band.end,
        [&](const Region& region, int64_t image, int64_t i, int64_t j) {
          const int64_t row =
              image * kept + (i - first) * window_.row_stride + region.rows.first_tap;
          const int64_t column = j * window_.column_stride + region.columns.first_tap;
          return (row * window_.columns + column) * s_.channels;
        },
        [&](int64_t image, int64_t i, int64_t j) {
          return (image * rows + i - first) * s_.output_width + j;
        });
  }

  // Sums x over the window of each output of a band: along the input rows, then down the columns,
  // then the padding at the sides, for rows that are not cut there.
  void AddUp(const Band& band, Scratch* scratch) const {
    const int64_t columns = window_.columns, rows = window_.Rows(s_, band.end - band.first);
    const float* sums = scratch->cell_sums.data();
    int64_t cells = band.images * rows * columns;
    for (const auto& [taps, step, target] :
         {std::tuple(s_.kernel_width, int64_t{1}, scratch->row_sums.data()),
          std::tuple(s_.kernel_height, columns, scratch->cell_sums.data())}) {
      if (taps == 1) continue;
      cells -= (taps - 1) * step;
      level_.sum_windows(sums, taps, step, cells, target);
      sums = target;
    }
    float* pixels = scratch->pixel_sums.data();
    for (int64_t image = 0; image < band.images; ++image) {
      const float* row = sums + image * rows * columns;
      for (int64_t i = band.first; i < band.end; ++i, row += window_.row_stride * columns)
        for (int64_t j = 0; j < s_.output_width; ++j) *pixels++ = row[j * window_.column_stride];
    }
    if (packed_.padded_sum != 0.0f) AddPadded(band, scratch->pixel_sums.data());
  }

  void AddPadded(const Band& band, float* sums) const {
    const int64_t all = band.end - band.first;
    for (int64_t image = 0; image < band.images; ++image, sums += all * s_.output_width)
      for (const Span& rows : rows_)
        if (!AreCut(rows))
          for (int64_t i = std::max(band.first, rows.first); i < std::min(band.end, rows.end); ++i)
            for (const Span& columns : columns_)
              for (int64_t j = columns.first; j < columns.end; ++j)
                sums[(i - band.first) * s_.output_width + j] +=
                    rows.Taps() * (s_.kernel_width - columns.Taps()) * packed_.padded_sum;
  }

  void Compute(const Band& band, Scratch* scratch) const {
    const Pixels& pixels = scratch->pixels;
    const int64_t count = pixels.numbers.size(), row = s_.width * s_.channels;
    float* output =
        output_ + (band.image * s_.output_height + band.first) * s_.output_width * s_.filters;
    // The first input row of the next band, counted over all images.
    const int64_t next_row =
        (band.image + band.images - 1) * s_.height + band.end * s_.stride_height;
    // Where the kernel skips input, more would be fetched than is read.
    const bool all = window_.row_step == 1 && window_.column_step == 1;
    Prefetcher prefetcher(input_, s_.batch * s_.height * row, next_row * row,
                          all ? count * s_.stride_height * s_.stride_width * s_.channels : 0,
                          panels_.size() * CountTiles(pixels, reductions_, Most(panels_[0])));
    for (const Panel& panel : panels_) {
      const bool whole = panel.valid == panel.width;
      Tile tile = {};
      tile.values = scratch->cells.data();
      tile.panel = packed_.values.data() + Terms() * panel.first;
      tile.sums = whole ? output + panel.first : scratch->partial.data();
      tile.step = whole ? s_.filters : panel.width;
      tile.pixel_sums = scratch->pixel_sums.data();
      const float* const near = packed_.near.data() + panel.first;
      tile.near = *std::min_element(near, near + panel.valid);
      bool any_near = false;
      tile.any_near = &any_near;
      ComputeTiles(
          pixels, reductions_, Most(panel), level_.forward[panel.vectors - 1], tile,
          [&](size_t region, Tile* tile) {
            tile->filter_sums = packed_.sums.data() + region * TotalWidth(panels_) + panel.first;
          },
          [&] { prefetcher.Step(); });
      if (any_near) FormAgain(pixels, panel, tile, near);
      if (!whole)
        for (int64_t pixel = 0; pixel < count; ++pixel)
          std::copy_n(tile.sums + pixel * panel.width, panel.valid,
                      output + pixel * s_.filters + panel.first);
    }
  }

  // Forms the results of a panel that are near 0 as sums of absolute differences.
  void FormAgain(const Pixels& pixels, const Panel& panel, const Tile& tile,
                 const float* near) const {
    std::vector<float> block_sums(panel.width), totals(panel.width);
    for (size_t region = 0; region < reductions_.size(); ++region) {
      const Pixels::Piece& piece = pixels.pieces[region];
      const Reduction& reduction = reductions_[region];
      const float* outside = packed_.outside.data() + region * TotalWidth(panels_) + panel.first;
      for (int64_t i = piece.place; i < piece.place + piece.count; ++i) {
        float* const results = tile.sums + pixels.numbers[i] * tile.step;
        bool any = false;
        for (int64_t f = 0; f < panel.valid; ++f) any |= results[f] > near[f];
        if (!any) continue;
        std::fill(totals.begin(), totals.end(), 0.0f);
        for (const Block& block : reduction.blocks) {
          level_.distances[panel.vectors - 1](tile.values + pixels.windows[i],
                                              reduction.runs.data() + block.first_run, block.runs,
                                              tile.panel, block_sums.data());
          for (int64_t f = 0; f < panel.valid; ++f) totals[f] += block_sums[f];
        }
        for (int64_t f = 0; f < panel.valid; ++f)
          if (results[f] > near[f]) results[f] = outside[f] - totals[f];
      }
    }
  }

  int64_t Most(const Panel& panel) const {
    const int64_t pixels = level_.forward_pixels[panel.vectors - 1];
    return Terms() > kFewTerms ? pixels : std::min(pixels, kPixelsForFewTerms);
  }

  int64_t Terms() const { return s_.kernel_height * s_.kernel_width * s_.channels; }

  const Geometry& s_;
  const float* const input_;
  float* const output_;
  const Level& level_;
  const std::vector<Panel> panels_;
  const std::vector<Span> rows_, columns_;
  const std::vector<Region> regions_;
  const PackedFilter packed_;
  const Window window_;
  std::vector<Reduction> reductions_;  // By region.
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
