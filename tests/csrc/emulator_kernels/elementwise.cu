// Kernels of streaming and of reduction, for the emulator's own tests.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace {

struct Add {
  const float* a;
  const float* b;
  float* sum;
  int n;
};

// Four elements a thread where all four exist.
__global__ void __launch_bounds__(128) add_kernel(Add p) {
  const int first = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
  if (first + 4 <= p.n) {
    const float4 a = *reinterpret_cast<const float4*>(p.a + first);
    const float4 b = *reinterpret_cast<const float4*>(p.b + first);
    *reinterpret_cast<float4*>(p.sum + first) = make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
  } else {
    for (int i = first; i < p.n; ++i) {
      p.sum[i] = p.a[i] + p.b[i];
    }
  }
}

__device__ float block_sum(float value) {
  __shared__ float warp_sums[32];
  for (int offset = 16; offset; offset /= 2) {
    value += __shfl_down_sync(0xffffffffu, value, offset);
  }
  if (threadIdx.x % 32 == 0) {
    warp_sums[threadIdx.x / 32] = value;
  }
  __syncthreads();
  value = threadIdx.x < blockDim.x / 32 ? warp_sums[threadIdx.x] : 0.0f;
  if (threadIdx.x < 32) {
    for (int offset = 16; offset; offset /= 2) {
      value += __shfl_xor_sync(0xffffffffu, value, offset);
    }
  }
  return value;
}

// One block a row.
__global__ void __launch_bounds__(256) row_sums_kernel(const __nv_bfloat16* x, float* sums, int columns) {
  float total = 0.0f;
  for (int i = threadIdx.x; i < columns; i += blockDim.x) {
    total += __bfloat162float(x[static_cast<long long>(blockIdx.x) * columns + i]);
  }
  total = block_sum(total);
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = total;
  }
}

__global__ void total_kernel(const float* x, float* total, unsigned* finished, int n) {
  __shared__ bool last;
  extern __shared__ float partial[];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  partial[threadIdx.x] = i < n ? x[i] : 0.0f;
  __syncthreads();
  for (int half = blockDim.x / 2; half; half /= 2) {
    if (threadIdx.x < half) {
      partial[threadIdx.x] += partial[threadIdx.x + half];
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    atomicAdd(total, partial[0]);
    __threadfence();
    last = atomicInc(finished, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    *total = *reinterpret_cast<volatile float*>(total) * 2.0f;
  }
}

// One warp: loads and shared memory with a stride, stores without.
__global__ void strided_kernel(const float* x, float* out, int stride) {
  extern __shared__ float values[];
  values[threadIdx.x * stride] = x[threadIdx.x * stride];
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x * stride];
}

}  // namespace

extern "C" int launch_add(const float* a, const float* b, float* sum, int n) {
  const int blocks = (n + 511) / 512;
  add_kernel<<<blocks, 128>>>({a, b, sum, n});
  return cudaGetLastError();
}

extern "C" int launch_row_sums(const void* x, float* sums, int rows, int columns, int threads) {
  row_sums_kernel<<<rows, threads>>>(static_cast<const __nv_bfloat16*>(x), sums, columns);
  return cudaGetLastError();
}

// total must be 0; it becomes twice the sum.
extern "C" int launch_total(const float* x, float* total, unsigned* finished, int n) {
  total_kernel<<<(n + 63) / 64, 64, 64 * sizeof(float)>>>(x, total, finished, n);
  return cudaGetLastError();
}

extern "C" int launch_strided(const float* x, float* out, int stride) {
  strided_kernel<<<1, 32, 32 * stride * sizeof(float)>>>(x, out, stride);
  return cudaGetLastError();
}
