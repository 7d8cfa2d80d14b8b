// The product of two tiles in shared memory, added to accumulators in the registers of the block. Each warp computes
// [kWarpM][kWarpN] of it by mma, from fragments of the operands.
#pragma once

#include "arch/ldmatrix.cuh"
#include "arch/mma.cuh"
#include "conv_tile.cuh"

namespace resnet_fused::cuda {

// The kinds of arithmetic: element type, and mma on fragments whose k is 2 pieces.
struct MathHalf {
  using Element = __half;
  static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16_f16(c, a, b);
  }
};
struct MathBFloat16 {
  using Element = __nv_bfloat16;
  static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16_bf16(c, a, b);
  }
};
struct MathTf32 {
  using Element = float;
  static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k8_tf32(c, a, b);
  }
};

// Four matrices of 8 x 16 bytes of an operand: along its rows or columns (`extent`, of the tile) from `first`, and
// along the reduction from piece `k_piece`. Register i is of the extent's half i % 2 and of the reduction's i / 2 if
// EXTENT_FIRST, else the other way round: the orders in which mma takes a and b.
template <typename T, typename Layout, bool EXTENT_FIRST>
__device__ __forceinline__ void load_fragments(uint32_t (&r)[4], const char* tile, int first, int k_piece) {
  int lane = threadIdx.x % 32, matrix = lane / 8, line = lane % 8;
  int extent_half = EXTENT_FIRST ? matrix % 2 : matrix / 2;
  int k_half = EXTENT_FIRST ? matrix / 2 : matrix % 2;
  if constexpr (Layout::kInner) {
    ldmatrix_x4(r, shared_address(tile) + Layout::offset(first + 8 * extent_half + line, k_piece + k_half));
  } else if constexpr (sizeof(T) == 2) {
    int k = (k_piece + k_half) * kPiece<T> + line;
    ldmatrix_x4_trans(r, shared_address(tile) + Layout::offset(k, first / kPiece<T> + extent_half));
  } else {  // ldmatrix transposes 16 bits at a time
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int k = (k_piece + (EXTENT_FIRST ? i / 2 : i % 2)) * kPiece<T> + lane % 4;
      int extent = first + (EXTENT_FIRST ? i % 2 : i / 2) * 8 + lane / 4;
      const char* piece = tile + Layout::offset(k, extent / kPiece<T>);
      r[i] = reinterpret_cast<const uint32_t*>(piece)[extent % kPiece<T>];
    }
  }
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      r[i] = to_tf32(r[i]);
    }
  }
}

// Blocks on a multiprocessor, of the passes whose prologues and fragments take more registers than two of large tiles
// have.
template <typename Math, typename TileShape>
constexpr int kDrawMinBlocks =
    sizeof(typename Math::Element) == 4 || TileShape::kTileN == 128 ? 1 : TileShape::kMinBlocks;

template <typename Math, typename TileShape, typename LayoutA, typename LayoutB>
struct Product {
  using T = typename Math::Element;
  static constexpr bool kInBackground = false;
  static constexpr int kMmaM = TileShape::kWarpM / 16, kMmaN = TileShape::kWarpN / 8;

  float c[kMmaM][kMmaN][4];
  int first_m, first_n;  // of this warp

  __device__ __forceinline__ Product() {
    int warp = threadIdx.x / 32;
    first_m = warp % TileShape::kWarpsM * TileShape::kWarpM;
    first_n = warp / TileShape::kWarpsM * TileShape::kWarpN;
#pragma unroll
    for (int i = 0; i < kMmaM; ++i) {
#pragma unroll
      for (int j = 0; j < kMmaN; ++j) {
        c[i][j][0] = c[i][j][1] = c[i][j][2] = c[i][j][3] = 0.0f;
      }
    }
  }

  __device__ __forceinline__ void multiply(int a_tile, int b_tile) {
    const char *tile_a = shared_memory + a_tile, *tile_b = shared_memory + b_tile;
#pragma unroll
    for (int k_piece = 0; k_piece < TileShape::kRowBytes / kPieceBytes; k_piece += 2) {
      uint32_t a[kMmaM][4], b[kMmaN][2];
#pragma unroll
      for (int i = 0; i < kMmaM; ++i) {
        load_fragments<T, LayoutA, true>(a[i], tile_a, first_m + 16 * i, k_piece);
      }
#pragma unroll
      for (int j = 0; j < kMmaN; j += 2) {
        uint32_t two[4];
        load_fragments<T, LayoutB, false>(two, tile_b, first_n + 8 * j, k_piece);
        b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];
      }
#pragma unroll
      for (int i = 0; i < kMmaM; ++i) {
#pragma unroll
        for (int j = 0; j < kMmaN; ++j) {
          Math::mma(c[i][j], a[i], b[j]);
        }
      }
    }
  }

  __device__ __forceinline__ void publish() const {}
  __device__ __forceinline__ void finish() const {}

  // The accumulators as a matrix, rows `pitch` apart.
  __device__ __forceinline__ void store(float* staged, int pitch) const {
    int lane = threadIdx.x % 32, row = first_m + lane / 4, column = first_n + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kMmaM; ++i) {
#pragma unroll
      for (int j = 0; j < kMmaN; ++j) {
        float* at = staged + (row + 16 * i) * pitch + column + 8 * j;
        *reinterpret_cast<float2*>(at) = make_float2(c[i][j][0], c[i][j][1]);
        *reinterpret_cast<float2*>(at + 8 * pitch) = make_float2(c[i][j][2], c[i][j][3]);
      }
    }
  }
};

}  // namespace resnet_fused::cuda
