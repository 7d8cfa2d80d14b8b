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
};

__device__ __forceinline__ OutputColumns output_columns(int group, int group_channels, int first, bool vector) {
  int count = group_channels - first;
  return {group * group_channels + first, count, vector && count > 0};
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

// The staged tile, and memory for sums over its columns.
template <typename T, typename TileShape>
struct StagedTile {
  static constexpr int kPitch = TileShape::kTileN + 8;  // 8 rows of a warp's accumulators in different banks
  static constexpr int kRowPieces = TileShape::kTileN / kPiece<T>;
  static constexpr int kRowStep = kTileThreads / kRowPieces;
  static constexpr int kRows = TileShape::kTileM / kRowStep;  // per thread
  static constexpr int kTileBytes = TileShape::kTileM * kPitch * sizeof(float);
  static constexpr int kBytes = kTileBytes + kRowStep * TileShape::kTileN * sizeof(float);

  float* staged;  // [kTileM][kPitch]
  float* sums;    // [kRowStep][kTileN]

  template <typename ProductType>
  __device__ __forceinline__ StagedTile(char* shared, const ProductType& product)
      : staged(reinterpret_cast<float*>(shared)), sums(reinterpret_cast<float*>(shared + kTileBytes)) {
    product.store(staged, kPitch);
    __syncthreads();
  }

  // This thread's rows, and the first of its columns.
  __device__ __forceinline__ static int row(int i) { return threadIdx.x / kRowPieces + i * kRowStep; }
  __device__ __forceinline__ static int column() { return threadIdx.x % kRowPieces * kPiece<T>; }
  __device__ __forceinline__ static bool first_row() { return threadIdx.x < kRowPieces; }

  __device__ __forceinline__ void read(float (&v)[kPiece<T>], int i) const {
    read_floats(v, staged + row(i) * kPitch + column());
  }

  // Adds up what the threads of the same columns have, in the order of their rows; all of them get the sum.
  __device__ __forceinline__ void sum_columns(float (&v)[kPiece<T>]) const {
    float of_row[kPiece<T>];
    __syncthreads();
    write_floats(sums + row(0) * TileShape::kTileN + column(), v);
    __syncthreads();
    read_floats(v, sums + column());
    for (int r = 1; r < kRowStep; ++r) {
      read_floats(of_row, sums + r * TileShape::kTileN + column());
#pragma unroll
      for (int e = 0; e < kPiece<T>; ++e) {
        v[e] += of_row[e];
      }
    }
  }
};

}  // namespace resnet_fused::cuda
