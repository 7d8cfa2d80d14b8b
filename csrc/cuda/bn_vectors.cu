#include "bn_vectors.cuh"

#include <algorithm>

#include "bn.h"
#include "variant.cuh"

namespace resnet_fused::cuda {

void bn_backward_finalize(DType acc, const BackwardFinalizeParams& p, cudaStream_t stream) {
  auto kernel = acc == DType::kFloat64 ? bn_backward_finalize_kernel<double> : bn_backward_finalize_kernel<float>;
  launch_sweep("bn_backward_finalize", kernel, ceil_div(p.channels, kThreads), p, stream);
}

void bn_update_running(DType acc, const UpdateRunningParams& p, cudaStream_t stream) {
  auto kernel = acc == DType::kFloat64 ? bn_update_running_kernel<double> : bn_update_running_kernel<float>;
  launch_sweep("bn_update_running", kernel, std::max(p.norms, p.counters), p, stream);
}

}  // namespace resnet_fused::cuda
