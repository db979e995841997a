// The common part of both kernels: a block of threads computes a tile of results from pieces of
// both operands in shared memory, like a matrix product.
//
// No TensorFlow here, and no CUDA library, so that a test can compile this text for the host.

#ifndef TFKD_ADDER_NATIVE_CUDA_TILE_CUH_
#define TFKD_ADDER_NATIVE_CUDA_TILE_CUH_

#include <cstdint>

namespace tfkd {

constexpr int kDepth = 16;           // Terms that are in shared memory at a time.
constexpr int kQuad = 4;             // Numbers that are moved at once.
constexpr int kQuads = kDepth / kQuad;
constexpr int kPad = 4;              // Keeps threads that write one row off each other's banks.

// The number of pieces of `size` that cover `count`.
inline int64_t TilesAlong(int64_t count, int64_t size) { return (count + size - 1) / size; }

// A tile of `rows` pixels and `columns` filters or channels. A thread has `own_rows` x
// `own_columns` of its results, in quads that are spread over the tile.
template <int rows, int columns, int own_rows, int own_columns>
struct Tile {
  static constexpr int kRows = rows, kColumns = columns;
  static constexpr int kOwnRows = own_rows, kOwnColumns = own_columns;
  static constexpr int kAcross = columns / own_columns;  // Threads side by side.
  static constexpr int kDown = rows / own_rows;
  static constexpr int kThreads = kAcross * kDown;
  // Quads that a thread brings in, of either operand.
  static constexpr int kRowLoads = (rows * kQuads + kThreads - 1) / kThreads;
  static constexpr int kColumnLoads = (columns * kQuads + kThreads - 1) / kThreads;
};

template <typename T>
using Rows = float[kDepth][T::kRows + kPad];
template <typename T>
using Columns = float[kDepth][T::kColumns + kPad];

// The rows and columns of the tile that a thread has.
template <typename T>
__device__ inline int RowOf(int thread, int i) {
  return i / kQuad * (T::kDown * kQuad) + thread / T::kAcross * kQuad + i % kQuad;
}
template <typename T>
__device__ inline int ColumnOf(int thread, int j) {
  return j / kQuad * (T::kAcross * kQuad) + thread % T::kAcross * kQuad + j % kQuad;
}

__device__ inline void Unpack(const float4& quad, float* values) {
  values[0] = quad.x;
  values[1] = quad.y;
  values[2] = quad.z;
  values[3] = quad.w;
}

__device__ inline void Read(const float* from, float* values) {
  Unpack(*reinterpret_cast<const float4*>(from), values);
}

// Adds term(row value, column value, i, j, &sum) of all terms in shared memory. They are summed by
// themselves first, which keeps the rounding of long sums small.
template <typename T, typename Term>
__device__ inline void AddTerms(const Rows<T>& rows, const Columns<T>& columns, int thread,
                                const Term& term, float (&sums)[T::kOwnRows][T::kOwnColumns]) {
  float block[T::kOwnRows][T::kOwnColumns] = {};
#pragma unroll
  for (int d = 0; d < kDepth; ++d) {
    float row[T::kOwnRows], column[T::kOwnColumns];
#pragma unroll
    for (int i = 0; i < T::kOwnRows; i += kQuad) Read(&rows[d][RowOf<T>(thread, i)], row + i);
#pragma unroll
    for (int j = 0; j < T::kOwnColumns; j += kQuad)
      Read(&columns[d][ColumnOf<T>(thread, j)], column + j);
#pragma unroll
    for (int i = 0; i < T::kOwnRows; ++i)
#pragma unroll
      for (int j = 0; j < T::kOwnColumns; ++j) term(row[i], column[j], i, j, &block[i][j]);
  }
#pragma unroll
  for (int i = 0; i < T::kOwnRows; ++i)
#pragma unroll
    for (int j = 0; j < T::kOwnColumns; ++j) sums[i][j] += block[i][j];
}

// Goes over all terms, kDepth at a time. While add(side) works on one half of shared memory, the
// numbers of load(from) wait in registers until store(side) puts them into the other half.
template <typename Load, typename Store, typename Add>
__device__ inline void OverTerms(int terms, const Load& load, const Store& store, const Add& add) {
  load(0);
  store(0);
  __syncthreads();
  int side = 0;
  for (int from = 0; from < terms; from += kDepth, side ^= 1) {
    const bool more = from + kDepth < terms;
    if (more) load(from + kDepth);
    add(side);
    if (more) store(side ^ 1);
    __syncthreads();
  }
}

// Writes the results of a thread row by row, without those beyond the last pixel or column.
// at(row of the tile) is where the row begins, or null where there is none; `count` is the number
// of columns from the tile's first on.
template <typename T, bool whole_quads, typename At>
__device__ inline void Write(int thread, const At& at, int count,
                             const float (&results)[T::kOwnRows][T::kOwnColumns]) {
#pragma unroll
  for (int i = 0; i < T::kOwnRows; ++i) {
    float* row = at(RowOf<T>(thread, i));
    if (row == nullptr) continue;
#pragma unroll
    for (int j = 0; j < T::kOwnColumns; j += kQuad) {
      const int column = ColumnOf<T>(thread, j);
      if (whole_quads) {
        if (column < count)
          *reinterpret_cast<float4*>(row + column) = float4{
              results[i][j], results[i][j + 1], results[i][j + 2], results[i][j + 3]};
      } else {
#pragma unroll
        for (int k = 0; k < kQuad; ++k)
          if (column + k < count) row[column + k] = results[i][j + k];
      }
    }
  }
}

}  // namespace tfkd

#endif  // TFKD_ADDER_NATIVE_CUDA_TILE_CUH_
