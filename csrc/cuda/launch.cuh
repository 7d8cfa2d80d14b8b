// Launches of kernels that take one struct of parameters.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#include <stdexcept>
#include <string>

namespace resnet_fused::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
  }
}

constexpr int kSharedBytesWithoutAsking = 48 << 10;

// Raises the limit of dynamic shared memory where that is needed, and launches. No blocks: nothing to do. A kernel's
// own faults appear later, as with every CUDA launch.
template <typename Params>
void launch(void (*kernel)(Params), const char* name, int64_t blocks, int threads, int shared_bytes,
            cudaStream_t stream, const Params& params) {
  if (blocks == 0) {
    return;
  }
  if (blocks > INT32_MAX) {
    throw std::runtime_error(std::string(name) + ": a grid of " + std::to_string(blocks) + " blocks");
  }
  if (shared_bytes > kSharedBytesWithoutAsking) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               shared_bytes),
          name);
  }
  kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, stream>>>(params);
  check(cudaGetLastError(), name);
}

}  // namespace resnet_fused::cuda
