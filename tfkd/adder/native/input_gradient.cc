// Input gradient: a pixel gathers from all outputs that saw it, so that every result is written by
// one thread and no sum is scattered.
//
// With stride s, the row h lies h + pad = a (mod s) and is seen by the kernel rows a, a + s, ...
// only; the same goes for columns. Pixels of the same two remainders, a phase, are sums over the
// same part of the kernel, of a window of the output gradient that moves on by one from pixel to
// pixel. Windows reach over the border, where the gradient is 0.

#include <algorithm>
#include <vector>

#include "kernels.h"
#include "level.h"
#include "panels.h"
#include "reduction.h"

namespace tfkd {
namespace {

// Rows of gradients that a thread copies at once should stay in its second-level cache.
constexpr int64_t kBandFloats = 32 * 1024;

int64_t FloorDivide(int64_t value, int64_t divisor) {
  return (value >= 0 ? value : value - divisor + 1) / divisor;
}

// The pixels of an axis that the same part of the kernel sees.
struct Phase {
  Phase(int64_t remainder, int64_t size, int64_t kernel, int64_t stride, int64_t pad)
      : remainder(remainder),
        taps(remainder < kernel ? (kernel - remainder + stride - 1) / stride : 0),
        first((remainder - pad % stride + stride) % stride),
        count(first < size ? (size - first + stride - 1) / stride : 0),
        // Of the outputs that see the first pixel, the last; the kernel's first tap belongs to it.
        last_output((first + pad - remainder) / stride) {}

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
        row_phases_(PhasesOf(s_.height, s_.kernel_height, s_.stride_height, s_.pad_top)),
        column_phases_(PhasesOf(s_.width, s_.kernel_width, s_.stride_width, s_.pad_left)),
        first_column_(FloorDivide(s_.pad_left - s_.kernel_width + 1, s_.stride_width)),
        columns_(FloorDivide(s_.width - 1 + s_.pad_left, s_.stride_width) - first_column_ + 1),
        packed_(s_.kernel_height * s_.kernel_width * s_.filters * TotalWidth(panels_)) {
    int64_t packed = 0;
    for (const Phase& rows : row_phases_)
      for (const Phase& columns : column_phases_) {
        reductions_.emplace_back(rows.taps, columns.taps * s_.filters, columns_ * s_.filters);
        packed_offsets_.push_back(packed);
        packed += reductions_.back().terms * TotalWidth(panels_);
      }
    parallel(panels_.size(), s_.kernel_height * s_.kernel_width * s_.filters * level_.width * 4,
             [&](int64_t first, int64_t end) {
               for (int64_t i = first; i < end; ++i) Pack(filter, panels_[i]);
             });
    const int64_t rows = kBandFloats / std::max<int64_t>(1, columns_ * s_.filters);
    band_rows_ = std::min(
        s_.height,
        std::max<int64_t>(1, rows * s_.stride_height - s_.kernel_height + 1));
  }

  // Input rows, counted over all images.
  void Rows(int64_t first, int64_t end) const {
    Scratch scratch(*this, std::min(band_rows_, end - first));
    ForEachBand(first, end, s_.height, band_rows_,
                [&](int64_t image, int64_t first, int64_t end) {
                  const Outputs outputs = OutputsOf(image, first, end, &scratch);
                  const int64_t row = s_.width * s_.channels, all = s_.batch * s_.height * row;
                  const int64_t next = (image * s_.height + end) * row, count = (end - first) * row;
                  const int64_t steps = StepsOf(end - first);
                  Ahead ahead[] = {
                      {input_, all, next, count, steps},
                      {result_, all, next, count, steps},
                  };
                  for (size_t a = 0; a < row_phases_.size(); ++a)
                    for (size_t b = 0; b < column_phases_.size(); ++b)
                      Compute(image, first, end, a, b, outputs, ahead, &scratch);
                });
  }

 private:
  struct Scratch {
    Scratch(const Gatherer& owner, int64_t rows)
        : outputs((rows + owner.s_.kernel_height) * owner.columns_ * owner.s_.filters),
          // What whole vectors would read and write beyond the last channel of a pixel.
          own(Partial(owner, rows)),
          partial(Partial(owner, rows)),
          windows(rows * owner.s_.width) {}

    static int64_t Partial(const Gatherer& owner, int64_t rows) {
      const Panel& last = owner.panels_.back();
      return last.valid < last.width ? rows * owner.s_.width * last.width : 0;
    }

    Buffer outputs, own, partial;
    std::vector<const float*> windows;  // Of the pixels of a phase.
  };

  // Gradients of output rows from `first_row` on, columns from first_column_ on.
  struct Outputs {
    int64_t first_row;
    const float* values;
  };

  // For each phase and panel: for each term a value for each channel of the panel. The windows run
  // forward through the gradient, hence backward through the kernel.
  void Pack(const float* filter, const Panel& panel) {
    size_t phase = 0;
    for (const Phase& rows : row_phases_)
      for (const Phase& columns : column_phases_) {
        float* to = packed_.data() + packed_offsets_[phase] +
                    reductions_[phase].terms * panel.first;
        ++phase;
        for (int64_t t = rows.taps - 1; t >= 0; --t)
          for (int64_t u = columns.taps - 1; u >= 0; --u) {
            const int64_t tap =
                (rows.remainder + t * s_.stride_height) * s_.kernel_width +
                columns.remainder + u * s_.stride_width;
            const float* from = filter + (tap * s_.channels + panel.first) * s_.filters;
            for (int64_t f = 0; f < s_.filters; ++f, to += panel.width) {
              for (int64_t c = 0; c < panel.valid; ++c) to[c] = from[c * s_.filters + f];
              for (int64_t c = panel.valid; c < panel.width; ++c) to[c] = 0.0f;
            }
          }
      }
  }

  Outputs OutputsOf(int64_t image, int64_t first, int64_t end, Scratch* scratch) const {
    const int64_t first_row =
        FloorDivide(first + s_.pad_top - s_.kernel_height + 1, s_.stride_height);
    const int64_t last_row = FloorDivide(end - 1 + s_.pad_top, s_.stride_height);
    const float* images = gradient_ + image * s_.output_height * s_.output_width * s_.filters;
    if (first_row >= 0 && last_row < s_.output_height && first_column_ == 0 &&
        columns_ == s_.output_width)
      return {first_row, images + first_row * s_.output_width * s_.filters};
    const int64_t left = std::max<int64_t>(0, -first_column_);
    const int64_t inside = std::max(left, std::min(columns_, s_.output_width - first_column_));
    for (int64_t i = first_row; i <= last_row; ++i) {
      float* row = scratch->outputs.data() + (i - first_row) * columns_ * s_.filters;
      if (i < 0 || i >= s_.output_height) {
        std::fill_n(row, columns_ * s_.filters, 0.0f);
        continue;
      }
      const float* from = images + (i * s_.output_width + first_column_ + left) * s_.filters;
      std::fill_n(row, left * s_.filters, 0.0f);
      std::copy_n(from, (inside - left) * s_.filters, row + left * s_.filters);
      std::fill_n(row + inside * s_.filters, (columns_ - inside) * s_.filters, 0.0f);
    }
    return {first_row, scratch->outputs.data()};
  }

  // About how many tiles a band of so many rows has.
  int64_t StepsOf(int64_t rows) const {
    int64_t blocks = 0;
    for (const Reduction& reduction : reductions_) blocks += reduction.blocks.size();
    const int64_t most = level_.gradient_pixels[panels_[0].vectors - 1];
    return panels_.size() * blocks * TilesOf(rows, s_.stride_height) *
           TilesOf(s_.width, s_.stride_width * most);
  }

  // The pixels of one phase in the rows [first, end) of an image.
  void Compute(int64_t image, int64_t first, int64_t end, size_t a, size_t b,
               const Outputs& outputs, Ahead (&ahead)[2], Scratch* scratch) const {
    const Phase& rows = row_phases_[a];
    const Phase& columns = column_phases_[b];
    const size_t phase = a * column_phases_.size() + b;
    const Reduction& reduction = reductions_[phase];
    // Rows of this phase, by their number in it.
    const int64_t first_row = std::max<int64_t>(
        0, (first - rows.first + s_.stride_height - 1) / s_.stride_height);
    const int64_t end_row = std::max<int64_t>(
        0, (end - rows.first + s_.stride_height - 1) / s_.stride_height);
    const int64_t pixel_step = s_.stride_width * s_.channels;
    const auto offset_of = [&](int64_t row) {
      const int64_t h = rows.first + row * s_.stride_height;
      return ((image * s_.height + h) * s_.width + columns.first) * s_.channels;
    };
    if (reduction.terms == 0) {
      for (int64_t row = first_row; row < end_row; ++row)
        for (int64_t q = 0; q < columns.count; ++q)
          std::fill_n(result_ + offset_of(row) + q * pixel_step, s_.channels, 0.0f);
      return;
    }
    const int64_t rows_here = std::max<int64_t>(0, end_row - first_row);
    for (int64_t i = 0, place = 0; i < rows_here; ++i)
      for (int64_t q = 0; q < columns.count; ++q, ++place) {
        const int64_t row =
            rows.last_output + first_row + i - (rows.taps - 1) - outputs.first_row;
        const int64_t column = columns.last_output + q - (columns.taps - 1) - first_column_;
        scratch->windows[place] =
            outputs.values + (row * columns_ + column) * s_.filters;
      }
    for (const Panel& panel : panels_) {
      const bool whole = panel.valid == panel.width;
      const auto for_each_pixel = [&](const auto& function) {
        for (int64_t i = 0, place = 0; i < rows_here; ++i)
          for (int64_t q = 0; q < columns.count; ++q, place += panel.width)
            function(offset_of(first_row + i) + q * pixel_step + panel.first, place);
      };
      // Tiles reach from one row into the next where their results lie side by side.
      const bool joined = !whole || (s_.stride_height == 1 && s_.stride_width == 1);
      const int64_t stretch = joined ? rows_here * columns.count : columns.count;
      if (!whole)
        for_each_pixel([&](int64_t pixel, int64_t place) {
          float* own = scratch->own.data() + place;
          std::copy_n(input_ + pixel, panel.valid, own);
          std::fill(own + panel.valid, own + panel.width, 0.0f);
        });
      for (const Block& block : reduction.blocks) {
        Tile tile = {};
        tile.runs = reduction.runs.data() + block.first_run;
        tile.run_count = block.runs;
        tile.panel = packed_.data() + packed_offsets_[phase] + reduction.terms * panel.first +
                     block.first_term * panel.width;
        tile.sums_step = tile.own_step = whole ? pixel_step : panel.width;
        tile.first = &block == &reduction.blocks.front();
        const TileFunction* functions = level_.gradient[panel.vectors - 1];
        for (int64_t i = 0; i < (joined ? std::min<int64_t>(1, rows_here) : rows_here); ++i) {
          const int64_t place = whole ? offset_of(first_row + i) + panel.first : 0;
          float* sums = (whole ? result_ : scratch->partial.data()) + place;
          const float* own = (whole ? input_ : scratch->own.data()) + place;
          ForEachTile(stretch, level_.gradient_pixels[panel.vectors - 1],
                      [&](int64_t q, int64_t count) {
                        tile.windows = scratch->windows.data() + i * columns.count + q;
                        tile.sums = sums + q * tile.sums_step;
                        tile.own = own + q * tile.own_step;
                        for (Ahead& each : ahead) each.Step();
                        functions[count - 1](tile);
                      });
        }
      }
      if (!whole)
        for_each_pixel([&](int64_t pixel, int64_t place) {
          std::copy_n(scratch->partial.data() + place, panel.valid, result_ + pixel);
        });
    }
  }

  const Geometry& s_;
  const float* const input_;
  const float* const gradient_;
  float* const result_;
  const Level& level_;
  const std::vector<Panel> panels_;
  const std::vector<Phase> row_phases_, column_phases_;
  const int64_t first_column_, columns_;
  Buffer packed_;
  // By row phase, then column phase.
  std::vector<Reduction> reductions_;
  std::vector<int64_t> packed_offsets_;
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
