// Tiles: how the pixels of a band are cut, and in which order the tiles of a panel are computed.

#ifndef TFKD_ADDER_NATIVE_TILING_H_
#define TFKD_ADDER_NATIVE_TILING_H_

#include <cstdint>
#include <vector>

#include "pixels.h"
#include "reduction.h"
#include "simd_dispatch.h"

namespace tfkd {

// Pixels cut into tiles of at most `most`, as even as can be.
class Tiles {
 public:
  Tiles(int64_t pixels, int64_t most)
      : count_((pixels + most - 1) / most),
        least_(count_ == 0 ? 0 : pixels / count_),
        larger_(pixels - least_ * count_) {}

  int64_t count() const { return count_; }

  // Calls tile(first, count) for each.
  template <typename Function>
  void ForEach(const Function& tile) const {
    for (int64_t i = 0, first = 0; i < count_; ++i) {
      const int64_t count = least_ + (i < larger_);
      tile(first, count);
      first += count;
    }
  }

 private:
  int64_t count_, least_, larger_;  // Tiles, pixels of each, and how many have one more.
};

// The number of tiles of a panel. `reductions` are those of the regions, `most` the pixels of the
// largest tile.
inline int64_t CountTiles(const Pixels& pixels, const std::vector<Reduction>& reductions,
                          int64_t most) {
  int64_t tiles = 0;
  for (size_t region = 0; region < reductions.size(); ++region)
    tiles += reductions[region].blocks.size() * Tiles(pixels.pieces[region].count, most).count();
  return tiles;
}

// Computes the tiles of a panel by functions[pixels - 1], region by region and block by block.
// `tile` holds the fields that all tiles share; prepare(region, &tile) adds those of a region, and
// before() is called ahead of each tile.
template <typename Prepare, typename Before>
void ComputeTiles(const Pixels& pixels, const std::vector<Reduction>& reductions, int64_t most,
                  const TileFunction* functions, Tile tile, const Prepare& prepare,
                  const Before& before) {
  for (size_t region = 0; region < reductions.size(); ++region) {
    const Pixels::Piece& piece = pixels.pieces[region];
    const Reduction& reduction = reductions[region];
    const Tiles tiles(piece.count, most);
    prepare(region, &tile);
    for (const Block& block : reduction.blocks) {
      tile.runs = reduction.runs.data() + block.first_run;
      tile.run_count = block.runs;
      tile.first = &block == &reduction.blocks.front();
      tile.last = &block == &reduction.blocks.back();
      tiles.ForEach([&](int64_t first, int64_t count) {
        tile.windows = pixels.windows.data() + piece.place + first;
        tile.pixels = pixels.numbers.data() + piece.place + first;
        before();
        functions[count - 1](tile);
      });
    }
  }
}

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_TILING_H_
