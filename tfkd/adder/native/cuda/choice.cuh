// The tiles, and the choice of one for a layer.

#ifndef TFKD_ADDER_NATIVE_CUDA_CHOICE_CUH_
#define TFKD_ADDER_NATIVE_CUDA_CHOICE_CUH_

#include <cstdint>
#include <type_traits>

#include "../geometry.h"
#include "tile.cuh"

namespace tfkd {

// Rows x columns, then those of a thread. Where channels do not come in quads, numbers are moved
// one by one, and one tile serves all layers.
using Large = Tile<128, 64, 8, 4>;
using Square = Tile<64, 64, 4, 4>;
using Narrow = Tile<64, 32, 4, 4>;
using Slim = Tile<128, 16, 4, 4>;
constexpr int kChoices = 4;

// Calls visit(tile, whole) with an object of the tile's type, and std::true_type where numbers are
// moved in quads.
template <typename Visit>
void VisitTile(int choice, bool whole_quads, const Visit& visit) {
  using Whole = std::true_type;
  if (!whole_quads)
    visit(Narrow(), std::false_type());
  else if (choice == 0)
    visit(Large(), Whole());
  else if (choice == 1)
    visit(Square(), Whole());
  else if (choice == 2)
    visit(Narrow(), Whole());
  else
    visit(Slim(), Whole());
}

// Tiles as wide as the results, and as large as possible with work for all processors of the GPU.
inline int ChooseTile(int64_t rows, int64_t columns, int64_t processors) {
  if (columns <= Slim::kColumns) return 3;
  if (columns <= Narrow::kColumns) return 2;
  const int64_t tiles = TilesAlong(rows, Large::kRows) * TilesAlong(columns, Large::kColumns);
  return tiles >= processors ? 0 : 1;
}

inline bool IsWhole(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % (kQuad * sizeof(float)) == 0;
}

template <typename... Pointers>
bool WholeQuads(const Geometry& s, Pointers... pointers) {
  return s.channels % kQuad == 0 && s.filters % kQuad == 0 && (IsWhole(pointers) && ...);
}

// The pixels of the largest phase of the strides, which one layer of the gradient's grid covers.
inline int64_t PhasePixels(const Geometry& s) {
  return s.batch * TilesAlong(s.height, s.stride_height) * TilesAlong(s.width, s.stride_width);
}

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_CUDA_CHOICE_CUH_
