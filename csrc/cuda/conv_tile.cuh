// How one thread block's tiles are cut, and where their pieces lie in shared memory.
//
// The block computes a tile [kTileM][kTileN] of the result, a chunk of kTileK of the reduction at a time. A chunk of an
// operand is stored as rows of pieces, in one of two orders: the one in which memory has it.
// Pieces are swizzled: the 8 rows that ldmatrix reads at a time lie in different banks. The orders of 16-bit elements
// are the ones that wgmma's descriptors know.
#pragma once

#include "conv_element.cuh"
#include "heuristics.h"

namespace resnet_fused::cuda {

// Of WARPS_M rows of warps. MIN_BLOCKS on a multiprocessor bound the registers of a thread: by 128 for 2, 80 for 3.
template <int TILE_M, int TILE_N, int WARPS_M, int MIN_BLOCKS>
struct Tile {
  static constexpr int kTileM = TILE_M, kTileN = TILE_N, kMinBlocks = MIN_BLOCKS;
  static constexpr int kRowBytes = cuda::kRowBytes;
  static constexpr int kWarpsM = WARPS_M, kWarpM = TILE_M / WARPS_M, kWarpN = TILE_N / (kTileWarps / WARPS_M);
};
using Tile128x128 = Tile<128, 128, 2, 2>;
using Tile128x64 = Tile<128, 64, 4, 2>;
using Tile64x128 = Tile<64, 128, 1, 2>;
using Tile64x64 = Tile<64, 64, 2, 2>;

// With chunks that are twice as long.
template <typename TileShape>
struct LongChunks : TileShape {
  static constexpr int kRowBytes = kLongRowBytes;
};

extern __shared__ __align__(1024) char shared_memory[];  // the swizzle of wgmma repeats after as much

template <typename T, typename TileShape>
constexpr int kTileK = TileShape::kRowBytes / kPieceBytes * kPiece<T>;

// [EXTENT][TILE_K]: the reduction is innermost, as in pixels of fprop and dgrad.
template <typename T, int EXTENT, int TILE_K>
struct ReductionInner {
  static constexpr bool kInner = true;
  using Element = T;
  static constexpr int kTileK = TILE_K;
  static constexpr int kRows = EXTENT, kRowPieces = TILE_K / kPiece<T>, kRowPitch = kRowPieces * kPieceBytes;
  static constexpr int kBytes = kRows * kRowPitch;

  static __device__ __forceinline__ int offset(int row, int piece) {  // bytes
    return (row * kRowPieces + (piece ^ (row * kRowPieces / 8 % kRowPieces))) * kPieceBytes;
  }
};

// [TILE_K][EXTENT]: the reduction is outermost, as in both operands of wgrad.
template <typename T, int EXTENT, int TILE_K>
struct ReductionOuter {
  static constexpr bool kInner = false;
  using Element = T;
  static constexpr int kTileK = TILE_K;
  static constexpr int kRows = TILE_K, kRowPieces = EXTENT / kPiece<T>;
  static constexpr int kRowPitch = sizeof(T) == 4 ? kRowPieces * kPieceBytes : 128;
  static constexpr int kBytes = kRows * kRowPieces * kPieceBytes;

  static constexpr int kBlockBytes = kRows * 128;  // of all rows of 64 columns of 16 bits

  // float32 has no ldmatrix.trans: there, a warp reads 4 rows of 2 neighbouring pieces. 16 bits come in blocks of 64
  // columns, one after another.
  static __device__ __forceinline__ int offset(int row, int piece) {
    if constexpr (sizeof(T) == 4) {
      return (row * kRowPieces + (piece ^ 2 * row % 8)) * kPieceBytes;
    } else {
      return piece / 8 * kBlockBytes + (row * 8 + (piece % 8 ^ row % 8)) * kPieceBytes;
    }
  }
};

// The pieces of a tile that a thread copies, and forms, are its own: one column of pieces, every kRowStep-th row.
template <typename Layout>
struct OwnPieces {
  static constexpr int kElementBytes = sizeof(typename Layout::Element);
  static constexpr int kPieceElements = kPiece<typename Layout::Element>;
  static constexpr int kRowStep = kTileThreads / Layout::kRowPieces;
  static constexpr int kOffsetStep = kRowStep * Layout::kRowPitch;  // bytes from a piece to the next
  static constexpr int kCount = Layout::kRows / kRowStep;
  static_assert(kCount * kRowStep == Layout::kRows && kRowStep % 8 == 0, "threads divide the tile, swizzles repeat");

  static __device__ __forceinline__ int column() { return threadIdx.x % Layout::kRowPieces; }
  static __device__ __forceinline__ int row(int i) { return threadIdx.x / Layout::kRowPieces + i * kRowStep; }
  static __device__ __forceinline__ int offset() { return Layout::offset(row(0), column()); }  // bytes, of the first
};

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

}  // namespace resnet_fused::cuda
