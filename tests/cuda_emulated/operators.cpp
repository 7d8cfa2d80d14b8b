// The operators of csrc/torch on the CUDA kernels, run by the emulator on CPU tensors: torch.ops.resnet_fused_emulated.
#include "../../csrc/torch/cuda_device.h"
#include "../../csrc/torch/implement.h"
#include "../../csrc/torch/schemas.h"

namespace resnet_fused {

static bool tf32 = false, hopper = false;

cudaStream_t current_stream(const at::Tensor&) {
  return nullptr;
}

cuda::DeviceLimits device_limits(const at::Tensor&) {
  // Of an A100, as the emulator's CUDA runtime says; or with wgmma, and so small that every tile keeps it busy.
  return hopper ? cuda::DeviceLimits{1, 163 << 10, true} : cuda::DeviceLimits{108, 163 << 10, false};
}

bool allow_tf32() {
  return tf32;
}

}  // namespace resnet_fused

extern "C" __attribute__((visibility("default"))) void set_tf32(bool allowed) {
  resnet_fused::tf32 = allowed;
}

extern "C" __attribute__((visibility("default"))) void set_hopper(bool emulated) {
  resnet_fused::hopper = emulated;
}

TORCH_LIBRARY(resnet_fused_emulated, m) {
  resnet_fused::define(m);
}

TORCH_LIBRARY_IMPL(resnet_fused_emulated, CPU, m) {
  resnet_fused::implement<resnet_fused::CudaDevice>(m);
}

TORCH_LIBRARY(resnet_fused_emulated_library, m) {
  resnet_fused::define(m);
}

TORCH_LIBRARY_IMPL(resnet_fused_emulated_library, CPU, m) {
  using Device = resnet_fused::CudaDevice;
  resnet_fused::implement<Device, resnet_fused::LibraryConvolutions<Device>>(m);
}
