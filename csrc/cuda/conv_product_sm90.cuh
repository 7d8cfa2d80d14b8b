// The product of two tiles in shared memory by wgmma: a warpgroup multiplies 64 rows of the tile, in the background, so
// that its threads meanwhile form the next chunk.
#pragma once

#include "arch/wgmma.cuh"
#include "conv_product.cuh"

namespace resnet_fused::cuda {

struct MathHalfSm90 {
  using Element = __half;
  template <bool TRANS_A, bool TRANS_B>
  static __device__ __forceinline__ void mma(float (&c)[64], uint64_t a, uint64_t b) {
    wgmma_m64n128k16_f16<TRANS_A, TRANS_B>(c, a, b);
  }
  template <bool TRANS_A, bool TRANS_B>
  static __device__ __forceinline__ void mma(float (&c)[32], uint64_t a, uint64_t b) {
    wgmma_m64n64k16_f16<TRANS_A, TRANS_B>(c, a, b);
  }
};
struct MathBFloat16Sm90 {
  using Element = __nv_bfloat16;
  template <bool TRANS_A, bool TRANS_B>
  static __device__ __forceinline__ void mma(float (&c)[64], uint64_t a, uint64_t b) {
    wgmma_m64n128k16_bf16<TRANS_A, TRANS_B>(c, a, b);
  }
  template <bool TRANS_A, bool TRANS_B>
  static __device__ __forceinline__ void mma(float (&c)[32], uint64_t a, uint64_t b) {
    wgmma_m64n64k16_bf16<TRANS_A, TRANS_B>(c, a, b);
  }
};

// There are no fragments.
template <typename TileShape>
constexpr int kDrawMinBlocks<MathHalfSm90, TileShape> = TileShape::kMinBlocks;
template <typename TileShape>
constexpr int kDrawMinBlocks<MathBFloat16Sm90, TileShape> = TileShape::kMinBlocks;

// Rows or columns of an operand from `first`, a multiple of 64, on; at its 16 steps of the reduction from 16 * k on.
template <typename Layout>
__device__ __forceinline__ uint64_t operand_descriptor(const char* tile, int first, int k) {
  if constexpr (Layout::kInner) {
    return descriptor_k_major_64(shared_address(tile) + first * kRowBytes + k * 32);
  } else {
    uint32_t block = shared_address(tile) + first / 64 * Layout::kBlockBytes;
    return descriptor_mn_major_128(block + k * 2048, Layout::kBlockBytes);
  }
}

template <typename Math, typename TileShape, typename LayoutA, typename LayoutB>
struct WarpgroupProduct {
  static constexpr int kGroupsM = TileShape::kTileM / 64, kGroupN = TileShape::kTileN / (kTileWarps / 4 / kGroupsM);

  float c[kGroupN / 2];
  int first_m, first_n;  // of this warpgroup

  __device__ __forceinline__ WarpgroupProduct() {
    int group = threadIdx.x / 128;
    first_m = group % kGroupsM * 64;
    first_n = group / kGroupsM * kGroupN;
#pragma unroll
    for (int i = 0; i < kGroupN / 2; ++i) {
      c[i] = 0.0f;
    }
  }

  __device__ __forceinline__ void publish() const { fence_shared_for_async(); }

  __device__ __forceinline__ void multiply(const char* tile_a, const char* tile_b) {
    hold_accumulators(c);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kRowBytes / 32; ++k) {
      Math::template mma<!LayoutA::kInner, !LayoutB::kInner>(c, operand_descriptor<LayoutA>(tile_a, first_m, k),
                                                             operand_descriptor<LayoutB>(tile_b, first_n, k));
    }
    wgmma_commit();
  }

  __device__ __forceinline__ void finish() {
    wgmma_wait<0>();
    hold_accumulators(c);
  }

  // The accumulators as a matrix, rows `pitch` apart.
  __device__ __forceinline__ void store(float* staged, int pitch) const {
    int lane = threadIdx.x % 32, row = first_m + threadIdx.x % 128 / 32 * 16 + lane / 4;
    float* at = staged + row * pitch + first_n + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < kGroupN / 8; ++j) {
      *reinterpret_cast<float2*>(at + 8 * j) = make_float2(c[4 * j], c[4 * j + 1]);
      *reinterpret_cast<float2*>(at + 8 * j + 8 * pitch) = make_float2(c[4 * j + 2], c[4 * j + 3]);
    }
  }
};

template <typename TileShape, typename LayoutA, typename LayoutB>
struct Product<MathHalfSm90, TileShape, LayoutA, LayoutB>
    : WarpgroupProduct<MathHalfSm90, TileShape, LayoutA, LayoutB> {};
template <typename TileShape, typename LayoutA, typename LayoutB>
struct Product<MathBFloat16Sm90, TileShape, LayoutA, LayoutB>
    : WarpgroupProduct<MathBFloat16Sm90, TileShape, LayoutA, LayoutB> {};

}  // namespace resnet_fused::cuda
