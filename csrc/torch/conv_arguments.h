// The arguments that the ways to run a convolution share.
#pragma once

#include "dense.h"

#include <tuple>

namespace resnet_fused {

struct ConvParams {
  at::IntArrayRef stride, padding, dilation;
  int64_t groups;
};

struct OperandParams {
  const at::Tensor& x;
  const OptionalTensor& prologue;
  bool relu;
};

struct EpilogueParams {
  const OptionalTensor &affine, &residual, &residual_affine;
  bool relu;
};

struct GradParams {
  const at::Tensor& grad;
  const OptionalTensor &out, &raw, &affine, &means;
  bool relu;
};

struct AddParams {
  const OptionalTensor &add, &out;
};

// x is the ReLU of a sum of which z(raw), and z2(raw2), are terms.
struct SumParams {
  const OptionalTensor &raw, &affine, &raw2, &affine2;
};

using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // dx, dw, sums; undefined where not wanted

// aten's rule for the memory format of a convolution's output.
inline at::MemoryFormat conv_format(const at::Tensor& x, const at::Tensor& weight) {
  constexpr auto kLast = at::MemoryFormat::ChannelsLast;
  bool last = x.suggest_memory_format() == kLast || weight.suggest_memory_format() == kLast;
  return last ? kLast : at::MemoryFormat::Contiguous;
}

}  // namespace resnet_fused
