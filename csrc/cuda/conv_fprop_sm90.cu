#include "conv_choose_sm90.cuh"
#include "conv_fprop.cuh"

namespace resnet_fused::cuda {

ConvFpropKernel conv_fprop_sm90_kernel(DType dtype, TileChoice tile) {
  return choose_sm90_kernel<Fprop>(dtype, tile);
}

}  // namespace resnet_fused::cuda
