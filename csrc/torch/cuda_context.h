// What the CUDA operators ask of PyTorch's CUDA library, apart from memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <cuda_runtime_api.h>

#include "../cuda/conv.h"

namespace resnet_fused {

// PyTorch's current stream of x's device.
cudaStream_t current_stream(const at::Tensor& x);

cuda::DeviceLimits device_limits(const at::Tensor& x);

// Whether convolutions of float32 may round their operands to TF32: torch.backends.cudnn.allow_tf32.
bool allow_tf32();

}  // namespace resnet_fused
