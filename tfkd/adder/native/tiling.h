// All tiles of a band and a panel: part by part, and block by block of its terms.

#ifndef TFKD_ADDER_NATIVE_TILING_H_
#define TFKD_ADDER_NATIVE_TILING_H_

#include <cstdint>
#include <vector>

#include "level.h"
#include "panels.h"
#include "pixels.h"
#include "reduction.h"

namespace tfkd {

// How many there are. `reductions` are those of the parts, `most` the pixels of the largest tile.
inline int64_t CountTiles(const Pixels& pixels, const std::vector<Reduction>& reductions,
                          int64_t most) {
  int64_t tiles = 0;
  for (size_t part = 0; part < reductions.size(); ++part)
    tiles += reductions[part].blocks.size() * Tiles(pixels.pieces[part].count, most).count();
  return tiles;
}

// Computes them by functions[pixels - 1]. `tile` holds what all have in common; prepare(part, &tile)
// adds what a part does, and before() is called ahead of each.
template <typename Prepare, typename Before>
void ComputeTiles(const Pixels& pixels, const std::vector<Reduction>& reductions, int64_t most,
                  const TileFunction* functions, Tile tile, const Prepare& prepare,
                  const Before& before) {
  for (size_t part = 0; part < reductions.size(); ++part) {
    const Pixels::Piece& piece = pixels.pieces[part];
    const Reduction& reduction = reductions[part];
    const Tiles tiles(piece.count, most);
    prepare(part, &tile);
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
