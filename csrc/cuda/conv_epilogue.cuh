// From accumulators to results: a tile is staged in shared memory as float32, so that each thread then has pieces of
// rows to store, of the same few channels in every row.
#pragma once

#include "conv_product.cuh"
#include "conv_prologue.cuh"
#include "heuristics.h"

namespace resnet_fused::cuda {

// The block's place among the tiles of all groups.
struct BlockTile {
  int row_tile, column_tile, group;
};

__device__ __forceinline__ BlockTile block_tile(const TilePlan& plan, int block) {
  int row = block / plan.column_tiles, group = row / plan.row_tiles;
  return {row - group * plan.row_tiles, block - row * plan.column_tiles, group};
}

// The columns of a thread's pieces.
struct OutputColumns {
  int channel;  // the first, within the tensor
  int count;    // of the piece that there are; may be <= 0
  bool vector;  // the whole piece is there, and aligned in memory
  int first_channel, end_channel;  // of the tile, within the tensor; and what its group ends before
};

// Of a piece `column` columns into a tile that begins `first` channels into its group.
__device__ __forceinline__ OutputColumns output_columns(int group, int group_channels, int first, int column,
                                                        bool vector) {
  int count = group_channels - first - column, start = group * group_channels;
  return {start + first + column, count, vector && count > 0, start + first, start + group_channels};
}

// mean, scale and shift of a piece's columns; of no use where affine is null.
template <int COUNT>
struct AffineColumns {
  float mean[COUNT] = {}, scale[COUNT] = {}, shift[COUNT] = {};

  __device__ __forceinline__ AffineColumns(const float* affine, int channels, const OutputColumns& columns) {
    if (affine) {
      load_channels(mean, affine + columns.channel, columns.count);
      load_channels(scale, affine + channels + columns.channel, columns.count);
      load_channels(shift, affine + 2 * channels + columns.channel, columns.count);
    }
  }

  __device__ __forceinline__ float z(float v, int e) const { return affine_of(v - mean[e], scale[e], shift[e]); }
};

// Two sums over a column of the tile.
struct ColumnSums {
  bool there;
  float first, second;
};

// The staged tile, and memory for sums over its columns.
template <typename T, typename TileShape>
struct StagedTile {
  static constexpr int kPitch = TileShape::kTileN + 8;  // 8 rows of a warp's accumulators in different banks
  static constexpr int kRowPieces = TileShape::kTileN / kPiece<T>;
  static constexpr int kRowStep = kTileThreads / kRowPieces;
  static constexpr int kRows = TileShape::kTileM / kRowStep;  // per thread
  static constexpr int kTileBytes = TileShape::kTileM * kPitch * sizeof(float);

  float* staged;  // [kTileM][kPitch]
  float* sums;    // [2][kTileWarps][kTileN]

  template <typename ProductType>
  __device__ __forceinline__ StagedTile(char* shared, const ProductType& product)
      : staged(reinterpret_cast<float*>(shared)), sums(reinterpret_cast<float*>(shared + kTileBytes)) {
    product.store(staged, kPitch);
    __syncthreads();
  }

  // This thread's rows, and the first of its columns.
  __device__ __forceinline__ static int row(int i) { return threadIdx.x / kRowPieces + i * kRowStep; }
  __device__ __forceinline__ static int column() { return threadIdx.x % kRowPieces * kPiece<T>; }

  __device__ __forceinline__ void read(float (&v)[kPiece<T>], int i) const { read_row(v, row(i)); }

  __device__ __forceinline__ void read_row(float (&v)[kPiece<T>], int row) const {
    read_floats(v, staged + row * kPitch + column());
  }

  // Adds up over the rows what the threads have of their columns: within warps first, then over the warps. Thread i
  // gets the sums of column i.
  __device__ __forceinline__ ColumnSums sum_columns(float (&first)[kPiece<T>], float (&second)[kPiece<T>]) const {
    static_assert(kRowPieces <= 32, "a warp has all columns");
#pragma unroll
    for (int e = 0; e < kPiece<T>; ++e) {
#pragma unroll
      for (int lanes = kRowPieces; lanes < 32; lanes *= 2) {
        first[e] += __shfl_xor_sync(0xffffffff, first[e], lanes);
        second[e] += __shfl_xor_sync(0xffffffff, second[e], lanes);
      }
    }
    if (threadIdx.x % 32 < kRowPieces) {
      float* of_warp = sums + threadIdx.x / 32 * TileShape::kTileN + column();
      write_floats(of_warp, first);
      write_floats(of_warp + kTileWarps * TileShape::kTileN, second);
    }
    __syncthreads();
    ColumnSums totals{threadIdx.x < TileShape::kTileN, 0.0f, 0.0f};
    if (totals.there) {
#pragma unroll
      for (int warp = 0; warp < kTileWarps; ++warp) {
        totals.first += sums[warp * TileShape::kTileN + threadIdx.x];
        totals.second += sums[(kTileWarps + warp) * TileShape::kTileN + threadIdx.x];
      }
    }
    return totals;
  }
};

}  // namespace resnet_fused::cuda
