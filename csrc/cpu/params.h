// What the kernels get besides an operation's arguments (../common/params.h): a driver's vectors and scratch memory.
#pragma once

#include "../common/params.h"
#include "types.h"

namespace resnet_fused::cpu {

// Per-chunk memory of the reductions: `stride` bytes each, laid out by the kernel.
struct Scratch {
  char* data;
  int64_t stride;
  int64_t slots;  // channels, rounded up so that it also holds one vector of lanes
};

struct StatisticsTask : StatisticsParams {
  Scratch scratch;  // double count, mean, m2 [slots] each; then acc pivot, sum, square
};

struct BackwardReduceTask : BackwardReduceParams {
  Scratch scratch;  // double sum [3][slots]; then acc tile [3][slots]
};

// draw = scale * (g - mean_g - slope * (x - mean))
struct BackwardApplyTask : BackwardApplyParams {
  const void* mean_g;  // acc [C]
  const void* slope;   // acc [C]: invstd * mean(g * xhat)
};

// With `draw` null: reduce, else scatter (and BN backward when x is given).
struct StemPoolBackwardTask : StemPoolBackwardParams {
  const void* mean_g;
  const void* slope;
  Scratch scratch;
};

}  // namespace resnet_fused::cpu
