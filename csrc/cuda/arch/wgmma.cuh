// Hopper's tensor core products of a warpgroup, 4 warps from a multiple of 4 on (PTX ISA, wgmma): d [64][N] +=
// a [64][k] b [k][N], operands from shared memory, accumulated in float32. For sm_90a only; elsewhere they trap.
//
// All 128 threads issue the same: wgmma_fence, products, wgmma_commit; wgmma_wait before d is used, or the operands'
// memory is written. Thread t has rows 16 (t / 32) + t % 32 / 4 (d[4j], d[4j + 1]) and 8 more (d[4j + 2], d[4j + 3]),
// columns 8j + 2 (t % 4) and the next.
#pragma once

#include <stdint.h>

namespace resnet_fused::cuda {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define RESNET_FUSED_ASM_SM90A(...) asm volatile(__VA_ARGS__)
#else
#define RESNET_FUSED_ASM_SM90A(...) __trap()
#endif

// Before the first product, and where registers of d were written since the last.
__device__ __forceinline__ void wgmma_fence() { RESNET_FUSED_ASM_SM90A("wgmma.fence.sync.aligned;" ::: "memory"); }

// Ends the group of the warpgroup's products.
__device__ __forceinline__ void wgmma_commit() {
  RESNET_FUSED_ASM_SM90A("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most PENDING groups of the warpgroup, the latest, are under way.
template <int PENDING>
__device__ __forceinline__ void wgmma_wait() {
  RESNET_FUSED_ASM_SM90A("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// Keeps the compiler from moving what it does with d across this place: it does not know that d is written between a
// product and its wait. Stands after the wait, and before the fence where d was set.
template <int REGISTERS>
__device__ __forceinline__ void hold_accumulators(float (&d)[REGISTERS]) {
#pragma unroll
  for (int i = 0; i < REGISTERS; ++i) {
    asm volatile("" : "+f"(d[i]));
  }
}

// This thread's writes to shared memory come before what products, issued after the barrier that follows, read. Copies
// by cp.async must have been waited for.
__device__ __forceinline__ void fence_shared_for_async() {
  RESNET_FUSED_ASM_SM90A("fence.proxy.async.shared::cta;" ::: "memory");
}

// Where an operand lies. Addresses and distances are multiples of 16 bytes below 2^18.
__device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t shared, uint32_t leading_bytes, uint32_t stride_bytes,
                                                     uint64_t swizzle) {
  return static_cast<uint64_t>((shared & 0x3ffff) >> 4) | static_cast<uint64_t>(leading_bytes >> 4) << 16 |
         static_cast<uint64_t>(stride_bytes >> 4) << 32 | swizzle << 62;
}

// [rows][64 bytes along the reduction]: 16-byte piece p of row r lies at p ^ (r / 2 % 4). The memory starts at a
// multiple of 512; the next step of the reduction, 32 bytes, is 32 further: not a row's swizzled place, which the
// hardware forms itself.
__device__ __forceinline__ uint64_t descriptor_k_major_64(uint32_t shared) {
  return wgmma_descriptor(shared, 16, 512, 2);  // the leading distance is not used
}

// [rows][128 bytes along the reduction]: the same, of piece p at p ^ (r % 8), in memory that starts at a multiple of
// 1024.
__device__ __forceinline__ uint64_t descriptor_k_major_128(uint32_t shared) {
  return wgmma_descriptor(shared, 16, 1024, 1);
}

// [steps of the reduction][64 elements of 16 bits], 128 bytes a row: piece p of row r lies at p ^ (r % 8). The next 64
// columns are `column_block_bytes` further. The memory starts at a multiple of 1024; the next 16 steps are 2048
// further.
__device__ __forceinline__ uint64_t descriptor_mn_major_128(uint32_t shared, uint32_t column_block_bytes) {
  return wgmma_descriptor(shared, column_block_bytes, 1024, 1);
}

#define RESNET_FUSED_D8(i)                                                                                       \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define RESNET_FUSED_D32(i) \
  RESNET_FUSED_D8(i), RESNET_FUSED_D8(i + 8), RESNET_FUSED_D8(i + 16), RESNET_FUSED_D8(i + 24)
#define RESNET_FUSED_FIRST_32                                                                                  \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31"
#define RESNET_FUSED_NEXT_32                                                                                       \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, " \
  "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// `rest`: the descriptors' registers, and what follows the predicate that says to add to d.
#define RESNET_FUSED_WGMMA(shape_and_types, registers, a, b, rest) \
  "{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\n"                   \
  "wgmma.mma_async.sync.aligned." shape_and_types " {" registers "}, " a ", " b ", add, 1, 1" rest ";\n}\n"

// TRANS_A, TRANS_B: the operand's layout is MN-major. Registers, operands and descriptors are numbered by the macros.
#define RESNET_FUSED_DEFINE_WGMMA_16(type)                                                                         \
  template <bool TRANS_A, bool TRANS_B>                                                                            \
  __device__ __forceinline__ void wgmma_m64n64k16_##type(float (&d)[32], uint64_t a, uint64_t b) {                 \
    RESNET_FUSED_ASM_SM90A(RESNET_FUSED_WGMMA("m64n64k16.f32." #type "." #type, RESNET_FUSED_FIRST_32, "%32",     \
                                              "%33", ", %34, %35")                                                 \
                           : RESNET_FUSED_D32(0)                                                                   \
                           : "l"(a), "l"(b), "n"(static_cast<int>(TRANS_A)), "n"(static_cast<int>(TRANS_B)));      \
  }                                                                                                                \
  template <bool TRANS_A, bool TRANS_B>                                                                            \
  __device__ __forceinline__ void wgmma_m64n128k16_##type(float (&d)[64], uint64_t a, uint64_t b) {                \
    RESNET_FUSED_ASM_SM90A(RESNET_FUSED_WGMMA("m64n128k16.f32." #type "." #type,                                   \
                                              RESNET_FUSED_FIRST_32 ", " RESNET_FUSED_NEXT_32, "%64", "%65",       \
                                              ", %66, %67")                                                        \
                           : RESNET_FUSED_D32(0), RESNET_FUSED_D32(32)                                             \
                           : "l"(a), "l"(b), "n"(static_cast<int>(TRANS_A)), "n"(static_cast<int>(TRANS_B)));      \
  }
RESNET_FUSED_DEFINE_WGMMA_16(f16)
RESNET_FUSED_DEFINE_WGMMA_16(bf16)

// Operands are float32, K-major, of which the lower 13 bits are cut off.
__device__ __forceinline__ void wgmma_m64n64k8_tf32(float (&d)[32], uint64_t a, uint64_t b) {
  RESNET_FUSED_ASM_SM90A(RESNET_FUSED_WGMMA("m64n64k8.f32.tf32.tf32", RESNET_FUSED_FIRST_32, "%32", "%33", "")
                         : RESNET_FUSED_D32(0)
                         : "l"(a), "l"(b));
}
__device__ __forceinline__ void wgmma_m64n128k8_tf32(float (&d)[64], uint64_t a, uint64_t b) {
  RESNET_FUSED_ASM_SM90A(RESNET_FUSED_WGMMA("m64n128k8.f32.tf32.tf32",
                                            RESNET_FUSED_FIRST_32 ", " RESNET_FUSED_NEXT_32, "%64", "%65", "")
                         : RESNET_FUSED_D32(0), RESNET_FUSED_D32(32)
                         : "l"(a), "l"(b));
}

#undef RESNET_FUSED_DEFINE_WGMMA_16
#undef RESNET_FUSED_WGMMA
#undef RESNET_FUSED_NEXT_32
#undef RESNET_FUSED_FIRST_32
#undef RESNET_FUSED_D32
#undef RESNET_FUSED_D8
#undef RESNET_FUSED_ASM_SM90A

}  // namespace resnet_fused::cuda
