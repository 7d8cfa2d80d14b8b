// Whole numbers of things.
#pragma once

#include "../common/types.h"

namespace resnet_fused::cpu {

constexpr int64_t kLine = 64;  // bytes of a cache line, to which memory is aligned

inline int64_t round_up(int64_t n, int64_t to) {
  return ceil_div(n, to) * to;
}

}  // namespace resnet_fused::cpu
