#include "cuda_device.h"
#include "implement.h"

TORCH_LIBRARY_IMPL(resnet_fused, CUDA, m) {
  resnet_fused::implement<resnet_fused::CudaDevice>(m);
}

TORCH_LIBRARY_IMPL(resnet_fused_library, CUDA, m) {
  using Device = resnet_fused::CudaDevice;
  resnet_fused::implement<Device, resnet_fused::LibraryConvolutions<Device>>(m);
}
