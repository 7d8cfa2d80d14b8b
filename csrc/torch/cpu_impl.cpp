#include "cpu_device.h"
#include "implement.h"

TORCH_LIBRARY_IMPL(resnet_fused, CPU, m) {
  resnet_fused::implement<resnet_fused::CpuDevice>(m);
}
