#include "conv_choose_sm90.cuh"
#include "conv_wgrad.cuh"

namespace resnet_fused::cuda {

ConvWgradKernel conv_wgrad_sm90_kernel(DType dtype, TileChoice tile) {
  return choose_sm90_kernel<Wgrad>(dtype, tile);
}

}  // namespace resnet_fused::cuda
