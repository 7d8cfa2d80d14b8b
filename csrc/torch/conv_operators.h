// The convolution operators: checks, then the device's own convolutions or the library's.
#pragma once

#include "checks.h"
#include "conv_library.h"

namespace resnet_fused {

inline at::Tensor or_empty(const at::Tensor& t, const at::Tensor& x) {
  return t.defined() ? t : at::empty({0}, x.options());
}

inline at::Tensor sums_or_empty(const at::Tensor& t, const at::Tensor& x) {
  return t.defined() ? t : empty_acc({0}, x);
}

inline void check_residual(const OptionalTensor& residual, const OptionalTensor& affine, bool relu) {
  TORCH_CHECK(given(affine) || (!given(residual) && !relu), "expected epilogue to be given with residual or relu");
}

inline void check_grad(const GradParams& g) {
  check_activation(g.grad);
  if (given(g.raw)) {
    check_activation(*g.raw);
    TORCH_CHECK(given(g.affine) && given(g.means), "expected affine and means to be given with raw");
  } else {
    TORCH_CHECK(!g.relu || given(g.out), "expected raw or out to be given with relu");
  }
}

inline void check_sum(const SumParams& sum, const OperandParams& operand, bool reduce, bool want_dx) {
  if (!given(sum.raw)) {
    TORCH_CHECK(!given(sum.raw2) && !given(sum.affine) && !given(sum.affine2),
                "expected sum_raw to be given with sum_affine, sum_raw2 and sum_affine2");
    return;
  }
  TORCH_CHECK(given(sum.affine), "expected sum_affine to be given with sum_raw");
  TORCH_CHECK(given(sum.raw2) == given(sum.affine2), "expected sum_affine2 to be given with sum_raw2");
  TORCH_CHECK(!reduce && !given(operand.prologue), "expected neither prologue nor reduce with sum_raw");
  TORCH_CHECK(want_dx, "expected dx to be wanted with sum_raw");
  check_same(*sum.raw, operand.x, "sum_raw");
  check_rows(*sum.affine, 4, operand.x, "sum_affine");
  if (given(sum.raw2)) {
    check_same(*sum.raw2, operand.x, "sum_raw2");
    check_rows(*sum.affine2, 4, operand.x, "sum_affine2");
  }
}

template <typename Device>
Gradients backward(Device& device, const GradParams& grad, const OperandParams& operand, const at::Tensor& weight,
                   const ConvParams& conv, bool reduce, const AddParams& add, const SumParams& sum,
                   std::array<bool, 2> output_mask) {
  const at::Tensor& x = operand.x;
  check_activation(x);
  check_grad(grad);
  TORCH_CHECK(!reduce || given(operand.prologue), "expected prologue to be given with reduce");
  TORCH_CHECK(given(add.add) || !given(add.out), "expected add to be given with add_out");
  check_sum(sum, operand, reduce, output_mask[0]);
  bool want_dx = output_mask[0] || reduce, want_dw = output_mask[1];
  at::Tensor dx, dw, sums;
  if (want_dx || want_dw) {
    std::tie(dx, dw, sums) =
        device.serves(x, weight, conv)
            ? device.conv_backward(grad, operand, weight, conv, reduce, add, sum, want_dx, want_dw)
            : library_conv_backward(device, grad, operand, weight, conv, reduce, add, sum, want_dx, want_dw);
  }
  if (output_mask[1]) {
    dw = dw.contiguous(weight.suggest_memory_format());
  }
  return {or_empty(output_mask[0] ? dx : at::Tensor(), x), or_empty(dw, x), sums_or_empty(sums, x)};
}

template <typename Device>
std::tuple<at::Tensor, at::Tensor> conv_fprop(Device& device, const at::Tensor& x, const at::Tensor& weight,
                                              at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                                              int64_t groups, const OptionalTensor& prologue, bool prologue_relu,
                                              bool statistics, const OptionalTensor& epilogue,
                                              const OptionalTensor& residual, const OptionalTensor& residual_affine,
                                              bool relu) {
  check_activation(x);
  check_residual(residual, epilogue, relu);
  ConvParams conv{stride, padding, dilation, groups};
  OperandParams operand{x, prologue, prologue_relu};
  EpilogueParams finish{epilogue, residual, residual_affine, relu};
  auto [y, stats] = device.serves(x, weight, conv)
                        ? device.conv_fprop(operand, weight, conv, statistics, finish)
                        : library_conv_fprop(device, operand, weight, conv, statistics, finish);
  return {y, sums_or_empty(stats, x)};
}

template <typename Device>
Gradients conv_backward(Device& device, const at::Tensor& grad, const OptionalTensor& out, const OptionalTensor& raw,
                        const OptionalTensor& affine, const OptionalTensor& means, bool relu, const at::Tensor& x,
                        const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
                        at::IntArrayRef dilation, int64_t groups, const OptionalTensor& prologue, bool prologue_relu,
                        bool reduce, const OptionalTensor& add, const OptionalTensor& add_out,
                        std::array<bool, 2> output_mask, const OptionalTensor& sum_raw,
                        const OptionalTensor& sum_affine, const OptionalTensor& sum_raw2,
                        const OptionalTensor& sum_affine2) {
  return backward(device, {grad, out, raw, affine, means, relu}, {x, prologue, prologue_relu}, weight,
                  {stride, padding, dilation, groups}, reduce, {add, add_out},
                  {sum_raw, sum_affine, sum_raw2, sum_affine2}, output_mask);
}

template <typename Device>
std::tuple<at::Tensor, at::Tensor> conv_dgrad(Device& device, const at::Tensor& grad, const OptionalTensor& out,
                                              const OptionalTensor& raw, const OptionalTensor& affine,
                                              const OptionalTensor& means, bool relu, const at::Tensor& x,
                                              const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
                                              at::IntArrayRef dilation, int64_t groups, const OptionalTensor& prologue,
                                              bool prologue_relu, bool reduce, const OptionalTensor& add,
                                              const OptionalTensor& add_out) {
  auto grads = conv_backward(device, grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation, groups,
                             prologue, prologue_relu, reduce, add, add_out, {true, false});
  return {std::get<0>(grads), std::get<2>(grads)};
}

template <typename Device>
at::Tensor conv_wgrad(Device& device, const at::Tensor& grad, const OptionalTensor& out, const OptionalTensor& raw,
                      const OptionalTensor& affine, const OptionalTensor& means, bool relu, const at::Tensor& x,
                      const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
                      at::IntArrayRef dilation, int64_t groups, const OptionalTensor& prologue, bool prologue_relu) {
  return std::get<1>(conv_backward(device, grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation,
                                   groups, prologue, prologue_relu, false, std::nullopt, std::nullopt, {false, true}));
}

}  // namespace resnet_fused
