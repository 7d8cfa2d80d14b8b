// The operators of csrc/torch on the CUDA kernels, run by the emulator on CPU tensors: torch.ops.resnet_fused_emulated.
#include "../../csrc/torch/cuda_device.h"
#include "../../csrc/torch/implement.h"
#include "../../csrc/torch/schemas.h"

namespace resnet_fused {

static bool tf32 = false;

cudaStream_t current_stream(const at::Tensor&) {
  return nullptr;
}

cuda::DeviceLimits device_limits(const at::Tensor&) {
  return {108, 163 << 10};  // of an A100, as the emulator's CUDA runtime says
}

bool allow_tf32() {
  return tf32;
}

}  // namespace resnet_fused

extern "C" __attribute__((visibility("default"))) void set_tf32(bool allowed) {
  resnet_fused::tf32 = allowed;
}

extern "C" __attribute__((visibility("default"))) void set_fused_convolutions(bool fused) {
  resnet_fused::CudaDevice::fuses_convolutions = fused;
}

TORCH_LIBRARY(resnet_fused_emulated, m) {
  resnet_fused::define(m);
}

TORCH_LIBRARY_IMPL(resnet_fused_emulated, CPU, m) {
  resnet_fused::implement<resnet_fused::CudaDevice>(m);
}
