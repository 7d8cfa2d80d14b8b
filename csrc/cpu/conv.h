// Convolutions with what surrounds them: the prologue of their operands and the epilogue of their results
// (conv_params.h). All tensors are channels_last but the weights, which have strides.
#pragma once

#include <functional>

#include "conv_params.h"

namespace resnet_fused::cpu {

struct ConvShape {
  int64_t N, C, H, W, K, R, S, P, Q;
  int64_t stride[2], padding[2], dilation[2];
  int64_t groups;
};

// Memory for the duration of a call, 64-byte aligned, uninitialised.
using Allocate = std::function<void*(int64_t bytes)>;

// Memory that outlives a call, for what is made of weights alone; `ready` if it holds that already, null if there is none.
struct KeptMemory {
  void* data;
  bool ready;
};
using Keep = std::function<KeptMemory(int64_t tag, int64_t bytes)>;

struct ConvWeights {
  const void* data;  // [K, C / groups, R, S]
  WeightStrides strides;
  Keep keep;         // may be empty
};

// result = finish(conv(operand, weights)); operand [N, C, H, W], result [N, K, P, Q].
// stats: acc [2, K], mean and M2 of the result, for Finish::kStatistics.
void conv_fprop(DType dtype, const ConvShape& shape, const ConvWeights& weights, Operand operand, Result result,
                void* stats, const Allocate& allocate);

// result = finish(transposed conv(draw, weights)); draw [N, K, P, Q], result [N, C, H, W].
// sums: acc [2, C], sum g and sum g * (x - mean) * invstd, where Finish::kBackward is given x.
void conv_dgrad(DType dtype, const ConvShape& shape, const ConvWeights& weights, Operand draw, Result result,
                void* sums, const Allocate& allocate);

// weights = sum over the pixels of draw of draw * operand.
void conv_wgrad(DType dtype, const ConvShape& shape, Operand operand, Operand draw, void* weights,
                const WeightStrides& strides, const Allocate& allocate);

// Whether 3x3 convolutions may use Winograd's algorithm: faster, with larger rounding errors. On at first.
void set_winograd(bool enabled);
bool winograd_enabled();

}  // namespace resnet_fused::cpu
