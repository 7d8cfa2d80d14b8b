// The product of two tiles by float32 multiply-adds; each thread computes rows and columns spread over the tile.
#pragma once

#include "conv_product.cuh"

namespace resnet_fused::cuda {

struct MathFfma {
  using Element = float;
};

template <typename TileShape, typename LayoutA, typename LayoutB>
struct Product<MathFfma, TileShape, LayoutA, LayoutB> {
  static constexpr bool kInBackground = false;
  static constexpr int kRowStep = 16, kColumnStep = kTileThreads / kRowStep;
  static constexpr int kRows = TileShape::kTileM / kRowStep, kColumns = TileShape::kTileN / kColumnStep;

  float c[kRows][kColumns];
  int row, column;  // the first of this thread; a warp's 16 rows lie in different banks

  __device__ __forceinline__ Product() : row(threadIdx.x % kRowStep), column(threadIdx.x / kRowStep) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        c[i][j] = 0.0f;
      }
    }
  }

  __device__ __forceinline__ void multiply(int a_tile, int b_tile) {
    const char *tile_a = shared_memory + a_tile, *tile_b = shared_memory + b_tile;
#pragma unroll 1
    for (int k_piece = 0; k_piece < TileShape::kRowBytes / kPieceBytes; ++k_piece) {
      float b[kColumns][4];
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        load_along_reduction<LayoutB>(b[j], tile_b, column + kColumnStep * j, k_piece);
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        float a[4];
        load_along_reduction<LayoutA>(a, tile_a, row + kRowStep * i, k_piece);
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            c[i][j] = fmaf(a[k], b[j][k], c[i][j]);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void publish() const {}
  __device__ __forceinline__ void finish() const {}

  __device__ __forceinline__ void store(float* staged, int pitch) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        staged[(row + kRowStep * i) * pitch + column + kColumnStep * j] = c[i][j];
      }
    }
  }

 private:
  // A row or column of the tile at 4 places of the reduction.
  template <typename Layout>
  __device__ __forceinline__ static void load_along_reduction(float (&v)[4], const char* tile, int extent,
                                                              int k_piece) {
    if constexpr (Layout::kInner) {
      read_piece<float>(v, tile + Layout::offset(extent, k_piece));
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        v[k] = reinterpret_cast<const float*>(tile + Layout::offset(4 * k_piece + k, extent / 4))[extent % 4];
      }
    }
  }
};

}  // namespace resnet_fused::cuda
