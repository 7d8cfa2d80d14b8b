#include "conv_wgrad.cuh"

#include "conv_choose.cuh"
#include "launch.cuh"
#include "conv_merge.h"

namespace resnet_fused::cuda {
namespace {

int64_t weights(const ConvShape& s) { return int64_t{s.K} * s.R * s.S * (s.C / s.groups); }

}  // namespace

int64_t conv_wgrad_workspace(const ConvWgradParams& params) {
  int splits = plan_conv_wgrad(params).splits;
  return splits > 1 ? splits * weights(params.problem.shape) * sizeof(float) : 0;
}

void launch_conv_wgrad(const ConvWgradParams& params, void* workspace, cudaStream_t stream) {
  const ConvShape& shape = params.problem.shape;
  TilePlan plan = plan_conv_wgrad(params);
  float* partials = plan.splits > 1 ? static_cast<float*>(workspace) : nullptr;
  ConvWgradKernelParams kernel_params{params, plan, partials,
                                      whole_pieces(shape.C, params.problem) && aligned(params.dw), pixel_window(shape),
                                      output_window(shape), output_window(shape).linear()};
  ConvWgradKernel kernel = multiplies_by_wgmma(params.problem, plan)
                               ? conv_wgrad_sm90_kernel(params.problem.dtype, plan)
                               : choose_kernel<Wgrad>(params.problem, plan);
  launch(kernel, "conv_wgrad", plan.blocks(shape.groups), kTileThreads, plan.shared_bytes, stream, kernel_params);
  if (partials) {
    launch_conv_splits({partials, plan.splits, weights(shape), params.problem.dtype, params.dw}, stream);
  }
}

}  // namespace resnet_fused::cuda
