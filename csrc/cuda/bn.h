// Batch norm on CUDA devices, the operations of ../common/params.h. Pointers are to device memory; launches are
// asynchronous on `stream`, of the current device. A workspace, of so many bytes at least as the function before says,
// may be used again once the launches have run.
//
// Bytes moved, of T per element and M elements: statistics M*T read; apply 2*M*T, and M*T for a residual, M/8 for bits;
// backward_reduce M*T for each of grad, out, x, x2, operand and masked that is given, M/8 for bits; backward_apply
// 3*M*T, and M*T for out; mask_add 2*M*T, and M*T for each of base and out. Besides them 4 bytes (float64: 8) for each
// row of constants, per channel, and for the workspaces' partial sums 16 bytes for each row and channel in each chunk
// (sweep.h).
#pragma once

#include <cuda_runtime_api.h>

#include "../common/params.h"

namespace resnet_fused::cuda {

int64_t bn_statistics_workspace(DType dtype, const StatisticsParams& params);
void bn_statistics(DType dtype, const StatisticsParams& params, void* workspace, cudaStream_t stream);
void bn_finalize(DType acc, const FinalizeParams& params, cudaStream_t stream);
void bn_apply(DType dtype, const ApplyParams& params, cudaStream_t stream);
int64_t bn_backward_reduce_workspace(DType dtype, const BackwardReduceParams& params);
void bn_backward_reduce(DType dtype, const BackwardReduceParams& params, void* workspace, cudaStream_t stream);
void bn_backward_apply(DType dtype, const BackwardApplyParams& params, cudaStream_t stream);
void bn_backward_finalize(DType acc, const BackwardFinalizeParams& params, cudaStream_t stream);
void bn_update_running(DType acc, const UpdateRunningParams& params, cudaStream_t stream);
void mask_add(DType dtype, const MaskAddParams& params, cudaStream_t stream);

}  // namespace resnet_fused::cuda
