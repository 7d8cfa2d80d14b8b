#include "conv_dgrad.cuh"

#include <numeric>

#include "conv_choose.cuh"
#include "launch.cuh"
#include "conv_merge.h"

namespace resnet_fused::cuda {
int64_t conv_dgrad_workspace(const ConvDgradParams& params) {
  return params.sums ? int64_t{plan_conv_dgrad(params).row_tiles} * 2 * params.problem.shape.C * sizeof(float) : 0;
}

void launch_conv_dgrad(const ConvDgradParams& params, void* workspace, cudaStream_t stream) {
  const ConvShape& shape = params.problem.shape;
  TilePlan plan = plan_conv_dgrad(params);
  int tap_step[2];
  for (int i = 0; i < 2; ++i) {
    tap_step[i] = shape.stride[i] / std::gcd(shape.stride[i], shape.dilation[i]);
  }
  Window window = class_window(shape, tap_step);
  ConvDgradKernelParams kernel_params{
      params,
      plan,
      params.sums ? static_cast<float*>(workspace) : nullptr,
      whole_pieces(shape.C, params.problem) && all_aligned(params.dx, params.add, params.add_out, params.input.x),
      {tap_step[0], tap_step[1]},
      window,
      window_steps(window, shape.groups),
      class_filter_steps(shape, tap_step),
      shape.stride[0] * shape.stride[1] == 1};
  ConvDgradKernel kernel = multiplies_by_wgmma(params.problem, plan)
                               ? conv_dgrad_sm90_kernel(params.problem.dtype, plan)
                               : choose_kernel<Dgrad>(params.problem, plan);
  launch(kernel, "conv_dgrad", plan.blocks(shape.groups), kTileThreads, plan.shared_bytes, stream, kernel_params);
  if (params.sums) {
    const float* invstd = params.input.affine + 3 * int64_t{shape.C};
    launch_conv_sums({kernel_params.partials, plan.row_tiles, shape.C, invstd, params.sums}, stream);
  }
}

}  // namespace resnet_fused::cuda
