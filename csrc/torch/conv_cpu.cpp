// Convolutions by the library, what surrounds them by our kernels, with as few passes over memory as that allows.
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>

#include "checks.h"
#include "cpu_impl.h"

namespace resnet_fused {
namespace {

struct ConvParams {
  at::IntArrayRef stride, padding, dilation;
  int64_t groups;
};

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

// aten's rule for the output of a convolution
at::MemoryFormat conv_format(const at::Tensor& x, const at::Tensor& weight) {
  bool last = x.suggest_memory_format() == kChannelsLast || weight.suggest_memory_format() == kChannelsLast;
  return last ? kChannelsLast : at::MemoryFormat::Contiguous;
}

at::Tensor empty_result(const at::Tensor& x) {
  return at::empty({0}, x.options());
}

// The gradient of the convolution's output, formed once for dgrad and wgrad.
struct GradParams {
  const at::Tensor& grad;
  const OptionalTensor &out, &raw, &affine, &means;
  bool relu;

  at::Tensor draw(at::MemoryFormat format) const {
    if (given(raw)) {
      TORCH_CHECK(given(affine) && given(means), "expected affine and means to be given with raw");
      check_activation(*raw);
      at::Tensor result = empty_dense(*raw, format);
      bn_backward_apply_into(result, format, grad, out, *raw, *affine, relu, *means);
      return result;
    }
    check_activation(grad);
    if (!relu) {
      return grad;
    }
    TORCH_CHECK(given(out), "expected raw or out to be given with relu");
    at::Tensor result = empty_dense(grad, format);
    mask_add_into(result, format, std::nullopt, grad, out);
    return result;
  }
};

struct OperandParams {
  const at::Tensor& x;
  const OptionalTensor& prologue;
  bool relu;

  at::Tensor form() const {
    if (!given(prologue)) {
      return x;
    }
    auto format = x.suggest_memory_format();
    at::Tensor result = empty_dense(x, format);
    bn_apply_into(result, format, x, *prologue, relu, std::nullopt, std::nullopt);
    return result;
  }
};

std::tuple<at::Tensor, at::Tensor> library_backward(const at::Tensor& draw, const at::Tensor& operand,
                                                    const at::Tensor& weight, const ConvParams& conv, bool dx,
                                                    bool dw) {
  auto grads = at::convolution_backward(draw, operand, weight, at::OptionalIntArrayRef(), conv.stride, conv.padding,
                                        conv.dilation, /*transposed=*/false, /*output_padding=*/{0, 0}, conv.groups,
                                        {dx, dw, false});
  return {std::get<0>(grads), std::get<1>(grads)};
}

struct AddParams {
  const OptionalTensor &add, &out;

  void to(at::Tensor& dx) const {
    if (!given(add)) {
      TORCH_CHECK(!given(out), "expected add to be given with add_out");
      return;
    }
    auto format = dx.suggest_memory_format();
    dx = dx.contiguous(format);
    mask_add_into(dx, format, dx, *add, out);
  }
};

using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

Gradients backward(const GradParams& grad, const OperandParams& operand, const at::Tensor& weight,
                   const ConvParams& conv, bool reduce, const AddParams& add, std::array<bool, 2> output_mask) {
  const at::Tensor& x = operand.x;
  check_activation(x);
  TORCH_CHECK(!reduce || given(operand.prologue), "expected prologue to be given with reduce");
  bool want_dx = output_mask[0] || reduce, want_dw = output_mask[1];
  at::Tensor dx = empty_result(x), dw = empty_result(x), sums = empty_acc({0}, x), activated;
  if (!want_dx && !want_dw) {
    return {dx, dw, sums};
  }
  at::Tensor draw = grad.draw(conv_format(x, weight));
  if (want_dx) {
    // dgrad reads only the shape and format of its second argument.
    bool both = want_dw && !given(operand.prologue);
    at::Tensor library_dw;
    std::tie(dx, library_dw) = library_backward(draw, x, weight, conv, true, both);
    dw = both ? library_dw : dw;
    want_dw = want_dw && !both;
    add.to(dx);
  }
  if (reduce && want_dw) {  // one pass over dx and x makes wgrad's operand too
    auto format = x.suggest_memory_format();
    activated = empty_dense(x, format);
    sums = bn_backward_reduce_operand(activated, format, dx, x, *operand.prologue, operand.relu);
  } else if (reduce) {
    sums = bn_backward_reduce(dx, std::nullopt, x, operand.prologue, operand.relu, std::nullopt, std::nullopt);
  }
  if (want_dw) {
    dw = std::get<1>(
        library_backward(draw, activated.defined() ? activated : operand.form(), weight, conv, false, true));
  }
  if (output_mask[1]) {
    dw = dw.contiguous(weight.suggest_memory_format());
  }
  return {output_mask[0] ? dx : empty_result(x), dw, sums};
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> conv_fprop(
    const at::Tensor& x, const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, int64_t groups, const OptionalTensor& prologue, bool prologue_relu, bool statistics,
    const OptionalTensor& epilogue, const OptionalTensor& residual, const OptionalTensor& residual_affine, bool relu) {
  OperatorGuard guard;
  check_activation(x);
  auto format = conv_format(x, weight);
  at::Tensor y = at::convolution(OperandParams{x, prologue, prologue_relu}.form(), weight, std::nullopt, stride,
                                 padding, dilation, /*transposed=*/false, /*output_padding=*/{0, 0}, groups)
                     .contiguous(format);
  at::Tensor stats = statistics ? bn_statistics(y) : empty_acc({0}, x);
  if (given(epilogue)) {
    bn_apply_into(y, format, y, *epilogue, relu, residual, residual_affine);
  } else {
    TORCH_CHECK(!given(residual) && !relu, "expected epilogue to be given with residual or relu");
  }
  return {y, stats};
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
