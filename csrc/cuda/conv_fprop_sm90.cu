#include "conv_choose_sm90.cuh"
#include "conv_fprop.cuh"

namespace resnet_fused::cuda {

ConvFpropKernel conv_fprop_sm90_kernel(DType dtype, const TilePlan& plan) {
  return choose_sm90_kernel<Fprop>(dtype, plan);
}

}  // namespace resnet_fused::cuda
