// The stem's relu(z(x)) and MaxPool 3x3 / 2, padding 1, in one pass, and its backward passes.
#pragma once

#include "params.h"

namespace resnet_fused::cpu {

// y and the winner's position 0..8 in its window; 255 where the maximum is not > 0 (nor NaN).
void stem_pool(DType dtype, const StemPoolParams& params);

// sums: acc [2, C] = sum g, sum g * xhat of the scattered gradient g; [1, C] without x.
void stem_pool_backward_reduce(DType dtype, StemPoolBackwardParams params, void* sums);

// draw = g, or with x = scale * (g - means[0] - xhat * means[1])
void stem_pool_backward_apply(DType dtype, StemPoolBackwardParams params, const void* means);

}  // namespace resnet_fused::cpu
