// Memory that is not an argument's: constant and device variables, shared memory by generic pointers, parameters by
// their address, and cudaMalloc.
#include <cstddef>

namespace {

__constant__ int factors[4];
__device__ int table[8] = {10, 11, 12, 13, 14, 15, 16, 17};
__device__ unsigned launches;

__global__ void variables_kernel(const int* in, int* out, int index) {
  out[threadIdx.x] = in[threadIdx.x] * factors[threadIdx.x % 4] + table[index + static_cast<int>(threadIdx.x % 8)];
  if (threadIdx.x == 0) {
    atomicAdd(&launches, 1);
  }
}

// Which memory the pointer is of is known at run time only.
__global__ void generic_kernel(const int* in, int* out, int from_shared) {
  __shared__ int values[32];
  int local[4];
  values[threadIdx.x] = in[threadIdx.x] + 100;
  for (int i = 0; i < 4; ++i) {
    local[(i + from_shared) % 4] = i;
  }
  __syncthreads();
  const int* choices[3] = {in, values, local};
  const int* chosen = choices[from_shared];
  out[threadIdx.x] = chosen[from_shared == 2 ? threadIdx.x % 4 : threadIdx.x];
}

struct Numbers {
  int values[8];
};
__global__ void parameter_kernel(const __grid_constant__ Numbers numbers, int* out) {
  const int* first = numbers.values;
  out[threadIdx.x] = first[threadIdx.x ^ 1];
}

}  // namespace

extern "C" {

int launch_variables(const int* in, int* out, int index) {
  const int numbers[] = {1, 2, 3, 4};
  cudaMemcpyToSymbol(factors, numbers, sizeof numbers);
  variables_kernel<<<1, 32>>>(in, out, index);
  return cudaGetLastError();
}
int launch_generic(const int* in, int* out, int from_shared) {
  generic_kernel<<<1, 32>>>(in, out, from_shared);
  return cudaGetLastError();
}
int launch_parameter(int* out) {
  parameter_kernel<<<1, 8>>>(Numbers{{0, 1, 2, 3, 4, 5, 6, 7}}, out);
  return cudaGetLastError();
}

// Through memory of the device, `extra` elements too many.
int launch_allocated(const int* in, int* out, int extra) {
  int *device_in, *device_out;
  cudaMalloc(&device_in, 32 * sizeof(int));
  cudaMalloc(&device_out, (32 - extra) * sizeof(int));
  cudaMemcpy(device_in, in, 32 * sizeof(int), cudaMemcpyHostToDevice);
  generic_kernel<<<1, 32>>>(device_in, device_out, 1);
  const cudaError_t status = cudaGetLastError();
  cudaMemcpy(out, device_out, (32 - extra) * sizeof(int), cudaMemcpyDeviceToHost);
  cudaFree(device_in);
  cudaFree(device_out);
  return status;
}
}
