#include "conv_fprop.cuh"

#include "conv_choose.cuh"
#include "launch.cuh"

namespace resnet_fused::cuda {
int64_t conv_fprop_workspace(const ConvFpropParams& params) {
  int64_t row = params.problem.shape.K * sizeof(float);
  return params.stats ? plan_conv_fprop(params).row_tiles * kStatisticsRows * row : 0;
}

void launch_conv_fprop(const ConvFpropParams& params, void* workspace, cudaStream_t stream) {
  const ConvShape& shape = params.problem.shape;
  TilePlan plan = plan_conv_fprop(params);
  Window window = output_window(shape);
  ConvFpropKernelParams kernel_params{params,
                                      plan,
                                      params.stats ? static_cast<float*>(workspace) : nullptr,
                                      whole_pieces(shape.K, params.problem) && all_aligned(params.y, params.residual),
                                      window,
                                      window_steps(window, shape.groups)};
  ConvFpropKernel kernel = multiplies_by_wgmma(params.problem, plan)
                               ? conv_fprop_sm90_kernel(params.problem.dtype, plan)
                               : choose_kernel<Fprop>(params.problem, plan);
  launch(kernel, "conv_fprop", plan.blocks(shape.groups), kTileThreads, plan.shared_bytes, stream, kernel_params);
  if (params.stats) {
    int tile_pixels = tile_size(plan.tile).m, pixels = shape.N * shape.P * shape.Q;
    launch_conv_statistics({kernel_params.partials, plan.row_tiles, shape.K, tile_pixels, pixels, params.stats},
                            stream);
  }
}

}  // namespace resnet_fused::cuda
