// A tiled product with sm_90a's wgmma, two stages, and its mistakes: c = a b^T, a is M x K and b is N x K, either
// stored transposed where asked for; c is float. M is a multiple of 128, N of the tile's 64 or 128, K of 64 bytes.
#include "../../../csrc/cuda/arch/cp_async.cuh"
#include "../../../csrc/cuda/arch/wgmma.cuh"

namespace {

using namespace resnet_fused::cuda;

constexpr int kTileM = 128;
constexpr int kPieces = 4;  // of 16 bytes, of K a stage

enum class Type { kHalf, kBFloat16, kTF32 };
enum Mistake {
  kNone,
  kNoWait,              // for the last products
  kEarlyRead,           // of the accumulators, before the wait
  kWaitOneTooFew,       // so that a stage is written while a product reads it
  kNoBarrierAfterWait,  // likewise, by other warps
  kNoBarrierBefore,     // products read what other warps have not written
  kNoProxyFence,
  kProxyFenceTooSoon,  // before copies have landed
  kNoRegisterFence,
  kOtherDescriptor,    // of one warp
  kMissingWarp,
  kMisplaced,  // tiles that do not start where the swizzle does
  kBehindMemory,
};

struct Matmul {
  const char* a;
  const char* b;
  float* c;
  int m, n, k;
  int copies;  // by cp.async, rather than by loads and stores
};

__device__ uint32_t address_of(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// A tile of [EXTENT] rows of an operand by kPieces pieces of K, and where its pieces are in a stage.
template <bool TRANS, int EXTENT, int SIZE>
struct Operand {
  static constexpr int kRows = TRANS ? kPieces * 16 / SIZE : EXTENT;  // in memory and in the stage
  static constexpr int kRowPieces = TRANS ? EXTENT * SIZE / 16 : kPieces;
  static constexpr int kBytes = kRows * kRowPieces * 16;
  static constexpr int kColumnBlock = kRows * 128;

  static __device__ int offset(int row, int piece) {
    return TRANS ? piece / 8 * kColumnBlock + row * 128 + (piece % 8 ^ row % 8) * 16
                 : row * 64 + (piece ^ row / 2 % 4) * 16;
  }
  // Of rows from `first` on, a multiple of 64, and step `step` of two pieces of K.
  static __device__ uint64_t descriptor(uint32_t stage, int first, int step) {
    return TRANS ? descriptor_mn_major_128(stage + first / 64 * kColumnBlock + step * 2048, kColumnBlock)
                 : descriptor_k_major_64(stage + first * 64 + step * 32);
  }
  // `first`: of the operand's `extent` rows; chunk: of K.
  static __device__ void load(char* stage, const char* matrix, int first, int extent, int k, int chunk, bool copies) {
    const int64_t pitch = int64_t{TRANS ? extent : k} * SIZE;
    const char* from = TRANS ? matrix + chunk * kRows * pitch + first * SIZE
                             : matrix + first * pitch + chunk * kPieces * 16;
    for (int i = threadIdx.x; i < kRows * kRowPieces; i += blockDim.x) {
      const int row = i / kRowPieces, piece = i % kRowPieces;
      char* to = stage + offset(row, piece);
      const char* source = from + row * pitch + piece * 16;
      if (copies) {
        cp_async_16(address_of(to), source, true);
      } else {
        *reinterpret_cast<int4*>(to) = *reinterpret_cast<const int4*>(source);
      }
    }
  }
};

template <Type type, bool TRANS_A, bool TRANS_B, int N>
__device__ void multiply(float (&d)[N / 2], uint64_t a, uint64_t b) {
  if constexpr (type == Type::kHalf && N == 64) {
    wgmma_m64n64k16_f16<TRANS_A, TRANS_B>(d, a, b);
  } else if constexpr (type == Type::kHalf) {
    wgmma_m64n128k16_f16<TRANS_A, TRANS_B>(d, a, b);
  } else if constexpr (type == Type::kBFloat16 && N == 64) {
    wgmma_m64n64k16_bf16<TRANS_A, TRANS_B>(d, a, b);
  } else if constexpr (type == Type::kBFloat16) {
    wgmma_m64n128k16_bf16<TRANS_A, TRANS_B>(d, a, b);
  } else if constexpr (N == 64) {
    wgmma_m64n64k8_tf32(d, a, b);
  } else {
    wgmma_m64n128k8_tf32(d, a, b);
  }
}

template <int N>
__device__ void store(const Matmul& p, const float (&d)[N / 2], int first) {
  const int thread = threadIdx.x % 128;
  const int y = blockIdx.y * kTileM + first + thread / 32 * 16 + thread % 32 / 4;
  const int x = blockIdx.x * N + thread % 4 * 2;
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    float* at = p.c + int64_t{y} * p.n + x + 8 * j;
    at[0] = d[4 * j];
    at[1] = d[4 * j + 1];
    at[8 * int64_t{p.n}] = d[4 * j + 2];
    at[8 * int64_t{p.n} + 1] = d[4 * j + 3];
  }
}

template <Type type, bool TRANS_A, bool TRANS_B, int N, int THREADS, int MISTAKE>
__global__ void __launch_bounds__(THREADS) wgmma_kernel(Matmul p) {
  constexpr int kSize = type == Type::kTF32 ? 4 : 2, kParts = 256 / THREADS;  // of 64 rows, a warpgroup
  using A = Operand<TRANS_A, kTileM, kSize>;
  using B = Operand<TRANS_B, N, kSize>;
  extern __shared__ __align__(1024) char shared[];
  char* stages = shared + (MISTAKE == kMisplaced ? 256 : 0);
  const int warp = threadIdx.x / 32, first = warp / 4 * 64;  // of the warpgroup's rows
  float d[kParts][N / 2];
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      d[part][i] = 0.0f;
    }
    hold_accumulators(d[part]);
  }
  const int chunks = p.k * kSize / (kPieces * 16);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    char* stage_a = stages + chunk % 2 * (A::kBytes + B::kBytes);
    char* stage_b = stage_a + A::kBytes;
    A::load(stage_a, p.a, blockIdx.y * kTileM, p.m, p.k, chunk, p.copies);
    B::load(stage_b, p.b, blockIdx.x * N, p.n, p.k, chunk, p.copies);
    cp_async_commit();
    if (MISTAKE == kProxyFenceTooSoon) {
      fence_shared_for_async();
    }
    cp_async_wait<0>();
    if (MISTAKE != kNoProxyFence && MISTAKE != kProxyFenceTooSoon) {
      fence_shared_for_async();
    }
    if (MISTAKE != kNoBarrierBefore) {
      __syncthreads();
    }
    if (MISTAKE == kMissingWarp && warp == 2) {
      return;
    }
    if (MISTAKE != kNoRegisterFence) {
      wgmma_fence();
    }
#pragma unroll
    for (int step = 0; step < kPieces / 2; ++step) {
      const int other = MISTAKE == kOtherDescriptor && warp == 1 ? 1 - step : step;
      const int behind = MISTAKE == kBehindMemory ? 2 * 64 : 0;
      const uint64_t b = B::descriptor(address_of(stage_b), behind, step);
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        multiply<type, TRANS_A, TRANS_B, N>(d[part], A::descriptor(address_of(stage_a), first + 64 * part, other), b);
      }
    }
    wgmma_commit();
    wgmma_wait<(MISTAKE == kWaitOneTooFew ? 2 : 1)>();
    if (MISTAKE != kNoBarrierAfterWait) {
      __syncthreads();
    }
  }
  if (MISTAKE != kNoWait && MISTAKE != kEarlyRead) {
    wgmma_wait<0>();
  }
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    if (MISTAKE != kNoWait && MISTAKE != kEarlyRead) {
      hold_accumulators(d[part]);
    }
    store<N>(p, d[part], first + 64 * part);
  }
  if (MISTAKE == kEarlyRead) {
    wgmma_wait<0>();
  }
}

template <Type type, bool TRANS_A, bool TRANS_B, int N, int THREADS, int MISTAKE = kNone>
int launch(const Matmul& p) {
  constexpr int kBytes = 2 * (kTileM + N) * kPieces * 16;
  wgmma_kernel<type, TRANS_A, TRANS_B, N, THREADS, MISTAKE><<<dim3(p.n / N, p.m / kTileM), THREADS, kBytes>>>(p);
  return cudaGetLastError();
}

template <Type type, bool TRANS_A, bool TRANS_B>
int launch_tile(int tile_n, const Matmul& p) {
  return tile_n == 64 ? launch<type, TRANS_A, TRANS_B, 64, 128>(p) : launch<type, TRANS_A, TRANS_B, 128, 256>(p);
}

template <Type type>
int launch_layout(int trans_a, int trans_b, int tile_n, const Matmul& p) {
  if (trans_a) {
    return trans_b ? launch_tile<type, true, true>(tile_n, p) : launch_tile<type, true, false>(tile_n, p);
  }
  return trans_b ? launch_tile<type, false, true>(tile_n, p) : launch_tile<type, false, false>(tile_n, p);
}

Matmul matmul(const void* a, const void* b, float* c, int m, int n, int k, int copies) {
  return {static_cast<const char*>(a), static_cast<const char*>(b), c, m, n, k, copies};
}

template <int MISTAKE>
int launch_mistake(int mistake, const Matmul& p) {
  if (mistake == MISTAKE) {
    return launch<Type::kHalf, false, false, 64, 128, MISTAKE>(p);
  }
  if constexpr (MISTAKE < kBehindMemory) {
    return launch_mistake<MISTAKE + 1>(mistake, p);
  }
  return -1;
}

}  // namespace

// type: 0 half, 1 bfloat16, 2 float as tf32, which is not transposed. tile_n: 64 (128 threads) or 128 (256).
extern "C" int launch_wgmma(int type, int trans_a, int trans_b, int tile_n, int copies, const void* a, const void* b,
                            float* c, int m, int n, int k) {
  const Matmul p = matmul(a, b, c, m, n, k, copies);
  return type == 0   ? launch_layout<Type::kHalf>(trans_a, trans_b, tile_n, p)
         : type == 1 ? launch_layout<Type::kBFloat16>(trans_a, trans_b, tile_n, p)
                     : launch_tile<Type::kTF32, false, false>(tile_n, p);
}

// Of halves.
extern "C" int launch_mistaken(int mistake, int copies, const void* a, const void* b, float* c, int m, int n, int k) {
  return launch_mistake<kNone>(mistake, matmul(a, b, c, m, n, k, copies));
}
