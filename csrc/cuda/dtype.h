// Types of tensor elements.
#pragma once

namespace resnet_fused {

enum class DType : int { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };

}  // namespace resnet_fused
