#include "bn_statistics.cuh"

#include "bn.h"
#include "variant.cuh"

namespace resnet_fused::cuda {
namespace {

int access_of(DType dtype, const StatisticsParams& p) {
  return vector_of(dtype, p.shape, {p.x});
}

}  // namespace

int64_t bn_statistics_workspace(DType dtype, const StatisticsParams& p) {
  return plan_sweep(p.shape, access_of(dtype, p)).chunks * 2 * p.shape.channels * sizeof(double);
}

void bn_statistics(DType dtype, const StatisticsParams& p, void* workspace, cudaStream_t stream) {
  int vector = access_of(dtype, p);
  Sweep sweep = plan_sweep(p.shape, vector);
  double* partial = static_cast<double*>(workspace);
  with_variant(dtype, vector, p.shape.channels_last, [&](auto v) {
    using V = decltype(v);
    launch_sweep("bn_statistics", bn_statistics_kernel<typename V::Type, V::kN, V::kChannelsLast>, sweep.blocks(),
                 BnStatisticsParams{sweep, p.x, partial}, stream);
  });
  auto merge = dtype == DType::kFloat64 ? merge_statistics_kernel<double> : merge_statistics_kernel<float>;
  launch_sweep("merge_statistics", merge, ceil_div(p.shape.channels, kMergeChannels),
               MergeStatisticsParams{sweep, partial, p.stats}, stream);
}

void bn_finalize(DType acc, const FinalizeParams& p, cudaStream_t stream) {
  auto kernel = acc == DType::kFloat64 ? bn_finalize_kernel<double> : bn_finalize_kernel<float>;
  BnFinalizeParams params{p.channels, p.mean, p.m2, p.weight, p.bias, static_cast<double>(p.count), p.eps, p.affine};
  launch_sweep("bn_finalize", kernel, ceil_div(p.channels, kThreads), params, stream);
}

}  // namespace resnet_fused::cuda
