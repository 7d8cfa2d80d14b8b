// Batch norm on dense tensors, the operations of ../common/params.h: passes over memory, threaded.
#pragma once

#include "../common/params.h"

namespace resnet_fused::cpu {

void bn_statistics(DType dtype, const StatisticsParams& params);  // zeros if there are no pixels
void bn_finalize(DType acc, const FinalizeParams& params);
void bn_apply(DType dtype, const ApplyParams& params);
void bn_backward_reduce(DType dtype, const BackwardReduceParams& params);
void bn_backward_apply(DType dtype, const BackwardApplyParams& params);
void mask_add(DType dtype, const MaskAddParams& params);

}  // namespace resnet_fused::cpu
