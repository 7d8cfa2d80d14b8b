// Convolutions with what surrounds them: the prologue of their operands and the epilogue of their results
// (conv_params.h). All tensors are channels_last but the weights, which have strides.
#pragma once

#include <functional>

#include "conv_params.h"
#include "conv_plan.h"
#include "conv_shape.h"

namespace resnet_fused::cpu {

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
// sums: acc [2, C], sum g and sum g * (x - mean) * invstd, where Finish::kBackward is given x; with raw of it, and a
// third row with raw2.
void conv_dgrad(DType dtype, const ConvShape& shape, const ConvWeights& weights, Operand draw, Result result,
                void* sums, const Allocate& allocate);

// weights = sum over the pixels of draw of draw * operand.
void conv_wgrad(DType dtype, const ConvShape& shape, Operand operand, Operand draw, void* weights,
                const WeightStrides& strides, const Allocate& allocate);

// The algorithm that the functions above use for a problem, or kLibrary where they had better not be called. Process-wide
// settings decide with the problem: Winograd's algorithm is faster, with larger rounding errors, and allowed at first.
Algorithm conv_algorithm(DType dtype, const ConvShape& shape);
void set_winograd(bool enabled);
bool winograd_enabled();
void set_engine(Engine engine);

}  // namespace resnet_fused::cpu
