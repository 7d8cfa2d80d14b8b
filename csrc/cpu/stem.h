// The stem's relu(z(x)) and MaxPool 3x3 / 2, padding 1, in one pass, and its backward passes (../common/params.h).
#pragma once

#include "../common/params.h"

namespace resnet_fused::cpu {

void stem_pool(DType dtype, const StemPoolParams& params);
void stem_pool_backward_reduce(DType dtype, const StemPoolBackwardParams& params);
void stem_pool_backward_apply(DType dtype, const StemPoolBackwardParams& params);

}  // namespace resnet_fused::cpu
