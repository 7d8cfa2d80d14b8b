#include "bn_backward.cuh"

#include "bn.h"
#include "variant.cuh"

namespace resnet_fused::cuda {
namespace {

int access_of(DType dtype, const BackwardReduceParams& p) {
  return vector_of(dtype, p.shape, {p.grad, p.out, p.x, p.affine, p.x2, p.affine2, p.operand, p.masked});
}

int rows_of(const BackwardReduceParams& p) {
  return p.x2 ? 3 : p.x ? 2 : 1;
}

}  // namespace

int64_t bn_backward_reduce_workspace(DType dtype, const BackwardReduceParams& p) {
  return plan_sweep(p.shape, access_of(dtype, p)).chunks * rows_of(p) * p.shape.channels * sizeof(double);
}

void bn_backward_reduce(DType dtype, const BackwardReduceParams& p, void* workspace, cudaStream_t stream) {
  int vector = access_of(dtype, p);
  Sweep sweep = plan_sweep(p.shape, vector);
  double* partial = static_cast<double*>(workspace);
  with_variant(dtype, vector, p.shape.channels_last, [&](auto v) {
    using V = decltype(v);
    launch_sweep("bn_backward_reduce", bn_backward_reduce_kernel<typename V::Type, V::kN, V::kChannelsLast>,
                 sweep.blocks(),
                 BnBackwardReduceParams{sweep, p.grad, p.out, p.x, p.affine, p.x2, p.affine2, p.operand, p.masked,
                                        p.bits, p.mask, partial},
                 stream);
  });
  launch_merge_sums(dtype, {p.shape.channels, sweep.chunks, rows_of(p), partial, p.affine, p.affine2, p.sums}, stream);
}

void bn_backward_apply(DType dtype, const BackwardApplyParams& p, cudaStream_t stream) {
  int vector = vector_of(dtype, p.shape, {p.grad, p.out, p.x, p.affine, p.means, p.draw});
  Sweep sweep = plan_sweep(p.shape, vector);
  with_variant(dtype, vector, p.shape.channels_last, [&](auto v) {
    using V = decltype(v);
    launch_sweep("bn_backward_apply", bn_backward_apply_kernel<typename V::Type, V::kN, V::kChannelsLast>,
                 sweep.blocks(),
                 BnBackwardApplyParams{sweep, p.grad, p.out, p.x, p.affine, p.means, p.draw, p.mask}, stream);
  });
}

void launch_merge_sums(DType dtype, const MergeSumsParams& params, cudaStream_t stream) {
  auto kernel = dtype == DType::kFloat64 ? merge_sums_kernel<double> : merge_sums_kernel<float>;
  launch_sweep("merge_sums", kernel, ceil_div(params.channels, kMergeChannels), params, stream);
}

}  // namespace resnet_fused::cuda
