// A tiled product with cp.async in two stages, ldmatrix and mma.sync: c = a b^T, a is M x K and b is N x K, c is float.
// M and N are multiples of 32, K of 64 bytes. -DWAIT=1 waits for one group too few.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#ifndef WAIT
#define WAIT 0
#endif

namespace {

constexpr int kTile = 32;           // rows of a and of b, by a block of 2 x 2 warps with 16 x 16 each
constexpr int kBytes = 64;          // of K a stage
constexpr int kPitch = kBytes + 16;  // of a row, so that ldmatrix has no bank conflicts
constexpr int kStage = kTile * kPitch;

enum class Type { kHalf, kBFloat16, kTF32 };

__device__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
__device__ void copy16(uint32_t to, const void* from, bool there) {
  const int bytes = there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
__device__ void commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kGroups>
__device__ void wait_all_but() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}
__device__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

#define MMA(shape, type)                                                                                       \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, " \
               "{%8, %9}, {%0, %1, %2, %3};"                                                                   \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

template <Type type>
__device__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (type == Type::kHalf) {
    MMA("m16n8k16", "f16");
  } else if constexpr (type == Type::kBFloat16) {
    MMA("m16n8k16", "bf16");
  } else {
    MMA("m16n8k8", "tf32");
  }
}

struct Matmul {
  const char* a;
  const char* b;
  float* c;
  int m, n;
  int row_bytes;  // of K
};

__device__ void load_stage(const Matmul& p, char* stage, int k) {
  for (int i = threadIdx.x; i < 2 * kTile * (kBytes / 16); i += blockDim.x) {
    const int row = i / (kBytes / 16), column = i % (kBytes / 16) * 16;
    const bool of_a = row < kTile;
    const char* matrix = of_a ? p.a + int64_t{blockIdx.y} * kTile * p.row_bytes
                              : p.b + (int64_t{blockIdx.x} * kTile - kTile) * p.row_bytes;
    const bool there = k + column < p.row_bytes;
    const char* from = there ? matrix + row * p.row_bytes + k + column : matrix;
    copy16(shared_address(stage + row * kPitch + column), from, there);
  }
  commit();
}

template <Type type>
__global__ void __launch_bounds__(128) matmul_kernel(Matmul p) {
  extern __shared__ __align__(16) char shared[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = warp / 2 * 16, column = warp % 2 * 16;
  float c[2][4] = {};
  load_stage(p, shared, 0);
  int parity = 0;
  for (int k = 0; k < p.row_bytes; k += kBytes) {
    load_stage(p, shared + (parity ^ 1) * 2 * kStage, k + kBytes);
    wait_all_but<1 + WAIT>();
    __syncthreads();
    const char* a_tile = shared + parity * 2 * kStage;
    const char* b_tile = a_tile + kStage;
    for (int step = 0; step < kBytes; step += 32) {
      uint32_t a[4], b[4];
      load_matrices(a, shared_address(a_tile + (row + lane % 16) * kPitch + step + lane / 16 * 16));
      load_matrices(b, shared_address(b_tile + (column + lane % 16) * kPitch + step + lane / 16 * 16));
      multiply<type>(c[0], a, b[0], b[2]);
      multiply<type>(c[1], a, b[1], b[3]);
    }
    __syncthreads();
    parity ^= 1;
  }
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 4; ++i) {
      const int y = blockIdx.y * kTile + row + lane / 4 + i / 2 * 8;
      const int x = blockIdx.x * kTile + column + half * 8 + lane % 4 * 2 + i % 2;
      p.c[int64_t{y} * p.n + x] = c[half][i];
    }
  }
}

template <Type type>
int launch(const Matmul& p) {
  const dim3 grid(p.n / kTile, p.m / kTile);
  matmul_kernel<type><<<grid, 128, 4 * kStage>>>(p);
  return cudaGetLastError();
}

}  // namespace

// type: 0 half, 1 bfloat16, 2 float as tf32.
extern "C" int launch_matmul(int type, const void* a, const void* b, float* c, int m, int n, int k) {
  const Matmul p = {static_cast<const char*>(a), static_cast<const char*>(b), c, m, n, k * (type == 2 ? 4 : 2)};
  return type == 0 ? launch<Type::kHalf>(p) : type == 1 ? launch<Type::kBFloat16>(p) : launch<Type::kTF32>(p);
}
