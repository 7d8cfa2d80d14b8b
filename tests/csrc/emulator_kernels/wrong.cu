// What the emulator must find: each launcher makes one mistake, and the right version beside it is run as well.
#include <cstdint>

namespace {

// Every thread reads what its neighbour wrote.
template <bool wait>
__global__ void rotate_kernel(const int* in, int* out) {
  __shared__ int values[128];
  values[threadIdx.x] = in[threadIdx.x];
  if (wait) {
    __syncthreads();
  }
  out[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}

// All add to one number.
template <bool atomic>
__global__ void sum_kernel(const int* in, int* out) {
  __shared__ volatile int sum;
  if (threadIdx.x == 0) {
    sum = 0;
  }
  __syncthreads();
  if (atomic) {
    atomicAdd(const_cast<int*>(&sum), in[threadIdx.x]);
  } else {
    sum = sum + in[threadIdx.x];
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    *out = sum;
  }
}

// groups: how many of the three groups of copies are still under way when the second is read.
template <int groups>
__global__ void copy_kernel(const int4* in, int4* out) {
  __shared__ int4 values[3][32];
  for (int stage = 0; stage < 3; ++stage) {
    const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(&values[stage][threadIdx.x]));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(in + stage * 32 + threadIdx.x) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
  __syncthreads();
  out[threadIdx.x] = values[1][(threadIdx.x + 1) % 32];
}

__global__ void divergent_kernel(int* out) {
  if (threadIdx.x < 16) {
    __syncthreads();
    out[threadIdx.x] = 1;
  } else {
    out[threadIdx.x] = 2;
  }
  __syncthreads();
}

// Half a warp waits for a shuffle that the other half never comes to.
__global__ void missing_lanes_kernel(int* out) {
  if (threadIdx.x < 16) {
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, threadIdx.x, 1);
  }
  __syncthreads();
}

__global__ void read_kernel(const float* in, float* out, int index) {
  *out = in[index];
}
__global__ void write_kernel(float* out, int index) {
  out[index] = 1.0f;
}
__global__ void read_vector_kernel(const float* in, float* out) {
  *reinterpret_cast<float4*>(out) = *reinterpret_cast<const float4*>(in);
}
__global__ void shared_kernel(float* out, int index) {
  extern __shared__ float values[];
  values[index] = 1.0f;
  *out = values[index];
}
__global__ void endless_kernel(volatile int* flag) {
  while (*flag == 0) {
  }
}
__global__ void __launch_bounds__(64) bounded_kernel(int* out) {
  out[threadIdx.x] = 1;
}

}  // namespace

extern "C" {

int launch_rotate(bool wait, const int* in, int* out) {
  wait ? rotate_kernel<true><<<1, 128>>>(in, out) : rotate_kernel<false><<<1, 128>>>(in, out);
  return cudaGetLastError();
}
int launch_sum(bool atomic, const int* in, int* out) {
  atomic ? sum_kernel<true><<<1, 256>>>(in, out) : sum_kernel<false><<<1, 256>>>(in, out);
  return cudaGetLastError();
}
int launch_copy(bool wait, const void* in, void* out) {
  const auto* from = static_cast<const int4*>(in);
  auto* to = static_cast<int4*>(out);
  wait ? copy_kernel<1><<<1, 32>>>(from, to) : copy_kernel<2><<<1, 32>>>(from, to);
  return cudaGetLastError();
}
const char* last_error_string() {
  return cudaGetErrorString(cudaErrorLaunchFailure);
}
int launch_divergent(int* out) {
  divergent_kernel<<<1, 32>>>(out);
  return cudaGetLastError();
}
int launch_missing_lanes(int* out) {
  missing_lanes_kernel<<<1, 32>>>(out);
  return cudaGetLastError();
}
int launch_read(const float* in, float* out, int index) {
  read_kernel<<<1, 1>>>(in, out, index);
  return cudaGetLastError();
}
int launch_write(float* out, int index) {
  write_kernel<<<1, 1>>>(out, index);
  return cudaGetLastError();
}
int launch_read_vector(const float* in, float* out) {
  read_vector_kernel<<<1, 1>>>(in, out);
  return cudaGetLastError();
}
int launch_shared(float* out, int index, int bytes, int allowed) {
  cudaFuncSetAttribute(shared_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, allowed);
  shared_kernel<<<1, 1, bytes>>>(out, index);
  return cudaGetLastError();
}
int launch_endless(int* flag) {
  endless_kernel<<<1, 1>>>(flag);
  return cudaGetLastError();
}
int launch_bounded(int* out, int threads, int grid_y) {
  bounded_kernel<<<dim3(1, grid_y), threads>>>(out);
  return cudaGetLastError();
}
}
