#include "conv_choose_sm90.cuh"
#include "conv_wgrad.cuh"

namespace resnet_fused::cuda {

ConvWgradKernel conv_wgrad_sm90_kernel(DType dtype, const TilePlan& plan) {
  return choose_sm90_kernel<Wgrad>(dtype, plan);
}

}  // namespace resnet_fused::cuda
