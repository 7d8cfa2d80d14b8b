// The two ways to run a convolution on the CPU, and the arguments they share, checked.
#pragma once

#include "cpu_impl.h"

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

using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;  // dx, dw, sums; undefined where not wanted

// aten's rule for the memory format of a convolution's output.
inline at::MemoryFormat conv_format(const at::Tensor& x, const at::Tensor& weight) {
  constexpr auto kLast = at::MemoryFormat::ChannelsLast;
  bool last = x.suggest_memory_format() == kLast || weight.suggest_memory_format() == kLast;
  return last ? kLast : at::MemoryFormat::Contiguous;
}

std::tuple<at::Tensor, at::Tensor> library_conv_fprop(const OperandParams& operand, const at::Tensor& weight,
                                                      const ConvParams& conv, bool statistics,
                                                      const EpilogueParams& epilogue);
Gradients library_conv_backward(const GradParams& grad, const OperandParams& operand, const at::Tensor& weight,
                                const ConvParams& conv, bool reduce, const AddParams& add, bool want_dx, bool want_dw);

// Whether the engine (csrc/cpu/conv.h) takes the problem; arguments that are no convolution are left to the library,
// whose errors are eager's.
bool engine_serves(const at::Tensor& x, const at::Tensor& weight, const ConvParams& conv);
std::tuple<at::Tensor, at::Tensor> engine_conv_fprop(const OperandParams& operand, const at::Tensor& weight,
                                                     const ConvParams& conv, bool statistics,
                                                     const EpilogueParams& epilogue);
Gradients engine_conv_backward(const GradParams& grad, const OperandParams& operand, const at::Tensor& weight,
                               const ConvParams& conv, bool reduce, const AddParams& add, bool want_dx, bool want_dw);

}  // namespace resnet_fused
