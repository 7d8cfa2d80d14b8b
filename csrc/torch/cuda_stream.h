// The stream that CUDA kernels are launched on.
#pragma once

#include <ATen/core/Tensor.h>
#include <cuda_runtime_api.h>

namespace resnet_fused {

// PyTorch's current stream of x's device.
cudaStream_t current_stream(const at::Tensor& x);

}  // namespace resnet_fused
