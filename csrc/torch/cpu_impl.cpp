#include "cpu_device.h"
#include "implement.h"

TORCH_LIBRARY_IMPL(resnet_fused, CPU, m) {
  resnet_fused::implement<resnet_fused::CpuDevice>(m);
}

TORCH_LIBRARY_IMPL(resnet_fused_library, CPU, m) {
  using Device = resnet_fused::CpuDevice;
  resnet_fused::implement<Device, resnet_fused::LibraryConvolutions<Device>>(m);
}
