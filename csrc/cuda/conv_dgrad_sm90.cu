#include "conv_choose_sm90.cuh"
#include "conv_dgrad.cuh"

namespace resnet_fused::cuda {

ConvDgradKernel conv_dgrad_sm90_kernel(DType dtype, const TilePlan& plan) {
  return choose_sm90_kernel<Dgrad>(dtype, plan);
}

}  // namespace resnet_fused::cuda
