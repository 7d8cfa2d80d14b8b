// Element types of the CPU kernels.
#pragma once

#include "../common/types.h"

namespace resnet_fused::cpu {

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

}  // namespace resnet_fused::cpu
