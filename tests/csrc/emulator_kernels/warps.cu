// What lanes do together.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace {

constexpr unsigned kAll = 0xffffffffu;

__global__ void votes_kernel(const int* in, unsigned* out) {
  const int x = in[threadIdx.x];
  unsigned* row = out + threadIdx.x * 8;
  row[0] = __ballot_sync(kAll, x & 1);
  row[1] = __any_sync(kAll, x == 3);
  row[2] = __all_sync(kAll, x < 100);
  row[3] = __match_any_sync(kAll, x);
  row[4] = __reduce_add_sync(kAll, x);
  row[5] = __reduce_max_sync(kAll, static_cast<unsigned>(x));
  int same;
  row[6] = __match_all_sync(kAll, x / 1000, &same) + same;
  if (threadIdx.x % 32 < 8) {
    row[7] = __ballot_sync(0xffu, x & 2);
  } else {
    row[7] = __ballot_sync(~0xffu, x & 4);
  }
}

__global__ void shuffles_kernel(const int* in, int* out) {
  const int x = in[threadIdx.x];
  int* row = out + threadIdx.x * 5;
  row[0] = __shfl_sync(kAll, x, 5);
  row[1] = __shfl_up_sync(kAll, x, 3);
  row[2] = __shfl_down_sync(kAll, x, 2, 8);
  row[3] = __shfl_xor_sync(kAll, x, 9);
  row[4] = __shfl_sync(kAll, x, threadIdx.x + 1, 16);
}

__global__ void counts_kernel(const int* in, int* out) {
  const int count = __syncthreads_count(in[threadIdx.x] & 1);
  const int all = __syncthreads_and(in[threadIdx.x] < 1000);
  const int some = __syncthreads_or(in[threadIdx.x] == 7);
  out[threadIdx.x] = count * 4 + (all != 0) * 2 + (some != 0);
}

// Two warps hand numbers on to two others, each pair through a barrier of its own.
__global__ void pairs_kernel(const int* in, int* out) {
  __shared__ int values[64];
  const int pair = threadIdx.x / 32 % 2, i = threadIdx.x % 32 + 32 * pair;
  if (threadIdx.x < 64) {
    values[i] = in[i];
    asm volatile("bar.arrive %0, 64;" ::"r"(pair + 1) : "memory");
  } else {
    asm volatile("bar.sync %0, 64;" ::"r"(pair + 1) : "memory");
    out[i] = values[i ^ 1];
  }
}

// One warp waits for a flag that another sets.
__global__ void flag_kernel(const int* in, int* out) {
  __shared__ int value;
  __shared__ volatile int flag;
  if (threadIdx.x == 0) {
    flag = 0;
  }
  __syncthreads();
  if (threadIdx.x == 40) {
    value = in[0];
    __threadfence_block();
    flag = 1;
  } else if (threadIdx.x == 0) {
    while (flag == 0) {
    }
    __threadfence_block();
    out[0] = value;
  }
}

// Each warp adds up its own 64 numbers in shared memory, with __syncwarp only.
__global__ void syncwarp_kernel(const int* in, int* out) {
  __shared__ int values[4][64];
  int* mine = values[threadIdx.x / 32];
  const int lane = threadIdx.x % 32;
  mine[lane] = in[threadIdx.x];
  mine[lane + 32] = in[threadIdx.x + 128];
  __syncwarp();
  for (int half = 32; half; half /= 2) {
    if (lane < half) {
      mine[lane] += mine[lane + half];
    }
    __syncwarp();
  }
  out[threadIdx.x] = mine[0];
}

__global__ void atomics_kernel(const int* in, int* out, float* sums) {
  __shared__ int total, highest;
  if (threadIdx.x == 0) {
    total = 0;
    highest = -1000;
  }
  __syncthreads();
  const int x = in[blockIdx.x * blockDim.x + threadIdx.x];
  atomicAdd(&total, x);
  atomicMax(&highest, x);
  atomicAdd(sums, static_cast<float>(x));
  atomicAdd(reinterpret_cast<double*>(sums + 2), static_cast<double>(x));
  atomicOr(out + 2, 1 << (x & 31));
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicAdd(out, total);
    atomicMax(out + 1, highest);
  }
}

}  // namespace

extern "C" {

int launch_votes(const int* in, unsigned* out) {
  votes_kernel<<<1, 64>>>(in, out);
  return cudaGetLastError();
}
int launch_shuffles(const int* in, int* out) {
  shuffles_kernel<<<1, 64>>>(in, out);
  return cudaGetLastError();
}
int launch_counts(const int* in, int* out) {
  counts_kernel<<<1, 96>>>(in, out);
  return cudaGetLastError();
}
int launch_pairs(const int* in, int* out) {
  pairs_kernel<<<1, 128>>>(in, out);
  return cudaGetLastError();
}
int launch_flag(const int* in, int* out) {
  flag_kernel<<<1, 64>>>(in, out);
  return cudaGetLastError();
}
int launch_syncwarp(const int* in, int* out) {
  syncwarp_kernel<<<1, 128>>>(in, out);
  return cudaGetLastError();
}
int launch_atomics(const int* in, int* out, float* sums) {
  atomics_kernel<<<4, 64>>>(in, out, sums);
  return cudaGetLastError();
}
}
