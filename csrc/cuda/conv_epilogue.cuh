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
    const float* from = staged + row(i) * kPitch + column();
#pragma unroll
    for (int e = 0; e < kPiece<T>; e += 4) {
      float4 four = *reinterpret_cast<const float4*>(from + e);
      v[e] = four.x, v[e + 1] = four.y, v[e + 2] = four.z, v[e + 3] = four.w;
    }
  }

  // Adds up what the threads of the same columns have, in the order of their rows; all of them get the sum.
  __device__ __forceinline__ void sum_columns(float (&v)[kPiece<T>]) const {
    __syncthreads();
#pragma unroll
    for (int e = 0; e < kPiece<T>; ++e) {
      sums[row(0) * TileShape::kTileN + column() + e] = v[e];
      v[e] = 0.0f;
    }
    __syncthreads();
    for (int r = 0; r < kRowStep; ++r) {
#pragma unroll
      for (int e = 0; e < kPiece<T>; ++e) {
        v[e] += sums[r * TileShape::kTileN + column() + e];
      }
    }
  }
};

}  // namespace resnet_fused::cuda
