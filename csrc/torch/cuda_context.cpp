#include "cuda_context.h"

#include <ATen/Context.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

namespace resnet_fused {

cudaStream_t current_stream(const at::Tensor& x) {
  return c10::cuda::getCurrentCUDAStream(x.get_device()).stream();
}

cuda::DeviceLimits device_limits(const at::Tensor& x) {
  cuda::DeviceLimits limits{};
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&limits.multiprocessors, cudaDevAttrMultiProcessorCount, x.get_device()));
  C10_CUDA_CHECK(
      cudaDeviceGetAttribute(&limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, x.get_device()));
#ifdef RESNET_FUSED_SM90A
  int major = 0, minor = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, x.get_device()));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, x.get_device()));
  limits.wgmma = major == 9 && minor == 0;
#endif
  return limits;
}

bool allow_tf32() {
  return at::globalContext().allowTF32CuDNN();
}

}  // namespace resnet_fused
