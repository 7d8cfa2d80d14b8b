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

// Where rows or columns of an operand from `first`, a multiple of 64, on begin in its tile.
template <typename Layout>
__device__ __forceinline__ uint32_t operand_offset(int first) {
  if constexpr (Layout::kInner) {
    return first * Layout::kRowPitch;
  } else {
    return first / 64 * Layout::kBlockBytes;
  }
}

template <typename Layout>
__device__ __forceinline__ uint64_t operand_descriptor(uint32_t shared) {
  if constexpr (Layout::kInner) {
    return Layout::kRowPitch == 64 ? descriptor_k_major_64(shared) : descriptor_k_major_128(shared);
  } else {
    return descriptor_mn_major_128(shared, Layout::kBlockBytes);
  }
}

// From 16 steps of the reduction to the next, bytes.
template <typename Layout>
constexpr int kStepBytes = Layout::kInner ? 32 : 16 * Layout::kRowPitch;

// Of memory that begins 16 * `by` bytes later. The address is the lowest part of a descriptor, with room above it for
// any sum: of its lower half.
__device__ __forceinline__ uint64_t later(uint64_t descriptor, uint32_t by) {
  return descriptor >> 32 << 32 | (static_cast<uint32_t>(descriptor) + by);
}

template <typename Math, typename TileShape, typename LayoutA, typename LayoutB>
struct WarpgroupProduct {
  static constexpr bool kInBackground = true;
  static constexpr int kGroupsM = TileShape::kTileM / 64, kGroupN = TileShape::kTileN / (kTileWarps / 4 / kGroupsM);

  float c[kGroupN / 2];
  int first_m, first_n;               // of this warpgroup
  uint64_t a_descriptor, b_descriptor;  // in tiles at 0

  __device__ __forceinline__ WarpgroupProduct() {
    int group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);  // lets the compiler see that it is all lanes'
    first_m = group % kGroupsM * 64;
    first_n = group / kGroupsM * kGroupN;
    uint32_t shared = shared_address(shared_memory);
    a_descriptor = operand_descriptor<LayoutA>(shared + operand_offset<LayoutA>(first_m));
    b_descriptor = operand_descriptor<LayoutB>(shared + operand_offset<LayoutB>(first_n));
#pragma unroll
    for (int i = 0; i < kGroupN / 2; ++i) {
      c[i] = 0.0f;
    }
  }

  __device__ __forceinline__ void publish() const { fence_shared_for_async(); }

  __device__ __forceinline__ void multiply(uint32_t tile_a, uint32_t tile_b) {
    hold_accumulators(c);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < TileShape::kRowBytes / 32; ++k) {
      Math::template mma<!LayoutA::kInner, !LayoutB::kInner>(
          c, later(a_descriptor, tile_a / 16 + k * kStepBytes<LayoutA> / 16),
          later(b_descriptor, tile_b / 16 + k * kStepBytes<LayoutB> / 16));
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
