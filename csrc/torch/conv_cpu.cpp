// The convolution operators: checks, then the engine or the library.
#include "conv_cpu.h"

#include "checks.h"

namespace resnet_fused {
namespace {

at::Tensor or_empty(const at::Tensor& t, const at::Tensor& x) {
  return t.defined() ? t : at::empty({0}, x.options());
}

at::Tensor sums_or_empty(const at::Tensor& t, const at::Tensor& x) {
  return t.defined() ? t : empty_acc({0}, x);
}

void check_residual(const OptionalTensor& residual, const OptionalTensor& affine, bool relu) {
  TORCH_CHECK(given(affine) || (!given(residual) && !relu), "expected epilogue to be given with residual or relu");
}

void check_grad(const GradParams& g) {
  check_activation(g.grad);
  if (given(g.raw)) {
    check_activation(*g.raw);
    TORCH_CHECK(given(g.affine) && given(g.means), "expected affine and means to be given with raw");
  } else {
    TORCH_CHECK(!g.relu || given(g.out), "expected raw or out to be given with relu");
  }
}

Gradients backward(const GradParams& grad, const OperandParams& operand, const at::Tensor& weight,
                   const ConvParams& conv, bool reduce, const AddParams& add, std::array<bool, 2> output_mask) {
  const at::Tensor& x = operand.x;
  check_activation(x);
  check_grad(grad);
  TORCH_CHECK(!reduce || given(operand.prologue), "expected prologue to be given with reduce");
  TORCH_CHECK(given(add.add) || !given(add.out), "expected add to be given with add_out");
  bool want_dx = output_mask[0] || reduce, want_dw = output_mask[1];
  at::Tensor dx, dw, sums;
  if (want_dx || want_dw) {
    auto run = engine_serves(x, weight, conv) ? engine_conv_backward : library_conv_backward;
    std::tie(dx, dw, sums) = run(grad, operand, weight, conv, reduce, add, want_dx, want_dw);
  }
  if (output_mask[1]) {
    dw = dw.contiguous(weight.suggest_memory_format());
  }
  return {or_empty(output_mask[0] ? dx : at::Tensor(), x), or_empty(dw, x), sums_or_empty(sums, x)};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> conv_fprop(
    const at::Tensor& x, const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, int64_t groups, const OptionalTensor& prologue, bool prologue_relu, bool statistics,
    const OptionalTensor& epilogue, const OptionalTensor& residual, const OptionalTensor& residual_affine, bool relu) {
  OperatorGuard guard;
  check_activation(x);
  check_residual(residual, epilogue, relu);
  ConvParams conv{stride, padding, dilation, groups};
  auto run = engine_serves(x, weight, conv) ? engine_conv_fprop : library_conv_fprop;
  auto [y, stats] = run({x, prologue, prologue_relu}, weight, conv, statistics,
                        {epilogue, residual, residual_affine, relu});
  return {y, sums_or_empty(stats, x)};
}

Gradients conv_backward(
    const at::Tensor& grad, const OptionalTensor& out, const OptionalTensor& raw, const OptionalTensor& affine,
    const OptionalTensor& means, bool relu, const at::Tensor& x, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups, const OptionalTensor& prologue,
    bool prologue_relu, bool reduce, const OptionalTensor& add, const OptionalTensor& add_out,
    std::array<bool, 2> output_mask) {
  OperatorGuard guard;
  return backward({grad, out, raw, affine, means, relu}, {x, prologue, prologue_relu}, weight,
                  {stride, padding, dilation, groups}, reduce, {add, add_out}, output_mask);
}

std::tuple<at::Tensor, at::Tensor> conv_dgrad(
    const at::Tensor& grad, const OptionalTensor& out, const OptionalTensor& raw, const OptionalTensor& affine,
    const OptionalTensor& means, bool relu, const at::Tensor& x, const at::Tensor& weight, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups, const OptionalTensor& prologue,
    bool prologue_relu, bool reduce, const OptionalTensor& add, const OptionalTensor& add_out) {
  auto grads = conv_backward(grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation, groups,
                             prologue, prologue_relu, reduce, add, add_out, {true, false});
  return {std::get<0>(grads), std::get<2>(grads)};
}

at::Tensor conv_wgrad(const at::Tensor& grad, const OptionalTensor& out, const OptionalTensor& raw,
                      const OptionalTensor& affine, const OptionalTensor& means, bool relu, const at::Tensor& x,
                      const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
                      at::IntArrayRef dilation, int64_t groups, const OptionalTensor& prologue, bool prologue_relu) {
  return std::get<1>(conv_backward(grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation, groups,
                                   prologue, prologue_relu, false, std::nullopt, std::nullopt, {false, true}));
}

}  // namespace resnet_fused
