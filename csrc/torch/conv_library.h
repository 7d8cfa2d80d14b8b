// Convolutions by the library, for what a device's own do not take; what surrounds them by our kernels, with as few
// passes over memory as that allows.
#pragma once

#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>

#include "bn_operators.h"
#include "conv_arguments.h"

namespace resnet_fused {

// The gradient of the convolution's output, formed once for dgrad and wgrad.
template <typename Device>
at::Tensor form_draw(Device& device, const GradParams& g, at::MemoryFormat format) {
  if (given(g.raw)) {
    at::Tensor result = empty_dense(*g.raw, format);
    bn_backward_apply_into(device, result, format, g.grad, g.out, *g.raw, *g.affine, g.relu, *g.means);
    return result;
  }
  if (!g.relu) {
    return g.grad;
  }
  at::Tensor result = empty_dense(g.grad, format);
  mask_add_into(device, result, format, std::nullopt, g.grad, g.out);
  return result;
}

template <typename Device>
at::Tensor form_operand(Device& device, const OperandParams& o) {
  if (!given(o.prologue)) {
    return o.x;
  }
  auto format = o.x.suggest_memory_format();
  at::Tensor result = empty_dense(o.x, format);
  bn_apply_into(device, result, format, o.x, *o.prologue, o.relu, std::nullopt, std::nullopt);
  return result;
}

inline std::tuple<at::Tensor, at::Tensor> library_backward(const at::Tensor& draw, const at::Tensor& operand,
                                                    const at::Tensor& weight, const ConvParams& conv, bool dx,
                                                    bool dw) {
  auto grads = at::convolution_backward(draw, operand, weight, at::OptionalIntArrayRef(), conv.stride, conv.padding,
                                        conv.dilation, /*transposed=*/false, /*output_padding=*/{0, 0}, conv.groups,
                                        {dx, dw, false});
  return {std::get<0>(grads), std::get<1>(grads)};
}

// dx of an x that is the ReLU of a sum, masked, and the sums of the sum's batch norms, by a pass of their own.
template <typename Device>
std::tuple<at::Tensor, at::Tensor> masked_sums(Device& device, const at::Tensor& dx, const at::Tensor& x,
                                               const SumParams& sum, at::MemoryFormat format) {
  auto [g, sums] =
      bn_backward_mask_reduce(device, dx, x, *sum.raw, *sum.affine, sum.raw2, sum.affine2, std::nullopt);
  return {g.contiguous(format), sums};
}

template <typename Device>
Gradients library_conv_backward(Device& device, const GradParams& grad, const OperandParams& operand,
                                const at::Tensor& weight, const ConvParams& conv, bool reduce, const AddParams& add,
                                const SumParams& sum, bool want_dx, bool want_dw) {
  const at::Tensor& x = operand.x;
  at::Tensor dx, dw, sums, activated;
  at::Tensor draw = form_draw(device, grad, conv_format(x, weight));
  if (want_dx) {
    // dgrad reads only the shape and format of its second argument.
    bool both = want_dw && !given(operand.prologue);
    at::Tensor library_dw;
    std::tie(dx, library_dw) = library_backward(draw, x, weight, conv, true, both);
    dw = both ? library_dw : dw;
    want_dw = want_dw && !both;
    if (given(add.add)) {
      auto format = dx.suggest_memory_format();
      dx = dx.contiguous(format);
      mask_add_into(device, dx, format, dx, *add.add, add.out);
    }
  }
  if (reduce && want_dw) {  // one pass over dx and x makes wgrad's operand too
    auto format = x.suggest_memory_format();
    activated = empty_dense(x, format);
    sums = bn_backward_reduce_operand(device, activated, format, dx, x, *operand.prologue, operand.relu);
  } else if (reduce) {
    sums = bn_backward_reduce(device, dx, std::nullopt, x, operand.prologue, operand.relu, std::nullopt, std::nullopt);
  }
  if (given(sum.raw)) {
    std::tie(dx, sums) = masked_sums(device, dx, x, sum, conv_format(x, weight));
  }
  if (want_dw) {
    at::Tensor formed = activated.defined() ? activated : form_operand(device, operand);
    dw = std::get<1>(library_backward(draw, formed, weight, conv, false, true));
  }
  return {dx, dw, sums};
}

template <typename Device>
std::tuple<at::Tensor, at::Tensor> library_conv_fprop(
    Device& device, const OperandParams& operand, const at::Tensor& weight, const ConvParams& conv, bool statistics,
    const EpilogueParams& epilogue) {
  auto format = conv_format(operand.x, weight);
  at::Tensor y = at::convolution(form_operand(device, operand), weight, std::nullopt, conv.stride, conv.padding,
                                 conv.dilation, /*transposed=*/false, /*output_padding=*/{0, 0}, conv.groups)
                     .contiguous(format);
  at::Tensor stats;
  if (statistics) {
    stats = bn_statistics(device, y);
  }
  if (given(epilogue.affine)) {
    bn_apply_into(device, y, format, y, *epilogue.affine, epilogue.relu, epilogue.residual, epilogue.residual_affine);
  }
  return {y, stats};
}

}  // namespace resnet_fused
