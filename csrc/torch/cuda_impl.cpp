#include "cuda_device.h"
#include "implement.h"

TORCH_LIBRARY_IMPL(resnet_fused, CUDA, m) {
  resnet_fused::implement<resnet_fused::CudaDevice>(m);
}
