#include "bn_apply.cuh"

#include "bn.h"
#include "variant.cuh"

namespace resnet_fused::cuda {

void bn_apply(DType dtype, const ApplyParams& p, cudaStream_t stream) {
  int vector = vector_of(dtype, p.shape, {p.x, p.affine, p.residual, p.residual_affine, p.y});
  Sweep sweep = plan_sweep(p.shape, vector);
  with_variant(dtype, vector, p.shape.channels_last, [&](auto v) {
    using V = decltype(v);
    launch_sweep("bn_apply", bn_apply_kernel<typename V::Type, V::kN, V::kChannelsLast>, sweep.blocks(),
                 BnApplyParams{sweep, p.x, p.affine, p.residual, p.residual_affine, p.y, p.relu, p.bits}, stream);
  });
}

void mask_add(DType dtype, const MaskAddParams& p, cudaStream_t stream) {
  Shape plane{1, 1, p.elements, false};
  int vector = vector_of(dtype, plane, {p.base, p.grad, p.out, p.y});
  AddMaskedParams params{plan_sweep(plane, vector), p.base, p.grad, p.out, p.y};
  with_type(dtype, [&](auto element) {
    using T = decltype(element);
    auto kernel = vector == 1 ? add_masked_kernel<T, 1> : add_masked_kernel<T, kAccessBytes / sizeof(T)>;
    launch_sweep("mask_add", kernel, params.sweep.blocks(), params, stream);
  });
}

}  // namespace resnet_fused::cuda
