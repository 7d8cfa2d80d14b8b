// Batch norm on dense tensors: the passes over memory, threaded. `acc` arrays are double for
// float64 activations, else float; `affine` is acc [4, C]: mean, scale, shift, invstd.
#pragma once

#include "params.h"

namespace resnet_fused::cpu {

// stats: acc [2, C] = mean, sum (x - mean)^2. Zeros if there are no pixels.
void bn_statistics(DType dtype, StatisticsParams params, void* stats);

// affine from stats: invstd = 1 / sqrt(M2 / count + eps), scale = weight * invstd, shift = bias.
// stats, weight, bias, affine: acc [2, C], [C], [C], [4, C]; weight and bias may be null (1, 0).
void bn_finalize(DType dtype, const void* stats, int64_t count, const void* weight, const void* bias,
                 double eps, int64_t channels, void* affine);

// y = [relu](z(x) + (residual | z(residual; residual_affine) | nothing)), z = (x - mean) * scale + shift
void bn_apply(DType dtype, const ApplyParams& params);

// sums: acc [1 + inputs, C] = sum g, sum g * xhat, sum g * xhat2, xhat = (x - mean) * invstd,
// with one row for each of x and x2 that is given.
void bn_backward_reduce(DType dtype, BackwardReduceParams params, void* sums);

// draw = scale * (g - means[0] - xhat * means[1]); means: acc [2, C]
void bn_backward_apply(DType dtype, BackwardApplyParams params, const void* means);

// y = base + (grad where not (out <= 0)), elementwise
void mask_add(DType dtype, const MaskAddParams& params, int64_t elements);

}  // namespace resnet_fused::cpu
