// The stem's relu(z(x)) and MaxPool 3x3 / 2, padding 1, on CUDA devices (bn.h says how to call them).
#pragma once

#include <cuda_runtime_api.h>

#include "../common/params.h"

namespace resnet_fused::cuda {

void stem_pool(DType dtype, const StemPoolParams& params, cudaStream_t stream);
int64_t stem_pool_backward_reduce_workspace(DType dtype, const StemPoolBackwardParams& params);
void stem_pool_backward_reduce(DType dtype, const StemPoolBackwardParams& params, void* workspace, cudaStream_t stream);
void stem_pool_backward_apply(DType dtype, const StemPoolBackwardParams& params, cudaStream_t stream);

}  // namespace resnet_fused::cuda
