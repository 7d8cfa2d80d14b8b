// Convolutions by the engine of csrc/cpu: tensors to its arguments.
#include "../cpu/conv.h"

#include <ATen/ops/mul.h>

#include "bn_operators.h"
#include "conv_call.h"
#include "cpu_device.h"
#include "weight_cache.h"

namespace resnet_fused {
namespace {

constexpr auto kLast = at::MemoryFormat::ChannelsLast;

cpu::ConvShape shape_of_conv(const at::Tensor& x, const at::Tensor& weight, const ConvParams& conv) {
  int64_t P = output_extent(x.size(2), weight.size(2), conv, 0), Q = output_extent(x.size(3), weight.size(3), conv, 1);
  return {x.size(0), x.size(1), x.size(2), x.size(3), weight.size(0), weight.size(2), weight.size(3), P, Q,
          {conv.stride[0], conv.stride[1]}, {conv.padding[0], conv.padding[1]},
          {conv.dilation[0], conv.dilation[1]}, conv.groups};
}

cpu::WeightStrides strides_of(const at::Tensor& w) {
  return {w.stride(0), w.stride(1), w.stride(2), w.stride(3)};
}

// With the temporary memory of the engine.
class Call : public KeptTensors {
 public:
  explicit Call(const at::Tensor& x)
      : options_(x.options().dtype(at::kByte).memory_format(at::MemoryFormat::Contiguous)) {
    allocate = [this](int64_t bytes) { return keep(at::empty({bytes}, options_)).mutable_data_ptr(); };
  }

  cpu::Allocate allocate;

 private:
  at::TensorOptions options_;
};

cpu::Operand operand_of(Call& call, const OperandParams& o) {
  if (given(o.prologue)) {
    check_rows(*o.prologue, 4, o.x, "prologue");
  }
  cpu::Operand operand{};
  operand.form = given(o.prologue) ? cpu::Form::kAffine : cpu::Form::kPlain;
  operand.x = call.activation(o.x);
  operand.affine = call.vector(o.prologue);
  operand.relu = o.relu;
  operand.images = o.x.size(0);
  operand.height = o.x.size(2);
  operand.width = o.x.size(3);
  operand.pitch = operand.channels = o.x.size(1);
  return operand;
}

cpu::Operand draw_of(Call& call, const GradParams& g) {
  cpu::Operand draw = operand_of(call, {g.grad, std::nullopt, g.relu});
  if (given(g.out)) {
    check_same(*g.out, g.grad, "out");
  }
  draw.out = g.relu ? call.activation(g.out) : nullptr;
  if (!given(g.raw)) {
    draw.form = draw.out ? cpu::Form::kMasked : cpu::Form::kPlain;
    return draw;
  }
  check_same(*g.raw, g.grad, "raw");
  check_rows(*g.affine, 4, g.grad, "affine");
  check_rows(*g.means, 2, g.grad, "means");
  draw.form = !g.relu ? cpu::Form::kDraw : draw.out ? cpu::Form::kDrawOutput : cpu::Form::kDrawAffine;
  draw.raw = call.activation(g.raw);
  draw.affine = call.vector(g.affine);
  draw.mean_g = call.vector(g.means->select(0, 0));
  draw.slope = call.vector(at::mul(g.means->select(0, 1), g.affine->select(0, 3)));
  return draw;
}

cpu::Result result_of(const at::Tensor& y) {
  cpu::Result result{};
  result.y = y.mutable_data_ptr();
  result.height = y.size(2);
  result.width = y.size(3);
  result.pitch = result.channels = y.size(1);
  return result;
}

}  // namespace

bool CpuDevice::serves(const at::Tensor& x, const at::Tensor& weight, const ConvParams& conv) {
  auto type = x.scalar_type();
  bool has_kernels = type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf;
  if (!has_kernels || !is_convolution(x, weight, conv)) {
    return false;
  }
  auto dtype = dtype_of(x.scalar_type(), "convolution");
  return cpu::conv_algorithm(dtype, shape_of_conv(x, weight, conv)) != cpu::Algorithm::kLibrary;
}

std::tuple<at::Tensor, at::Tensor> CpuDevice::conv_fprop(const OperandParams& operand, const at::Tensor& weight,
                                                     const ConvParams& conv, bool statistics,
                                                     const EpilogueParams& epilogue) {
  Call call(operand.x);
  auto dtype = dtype_of(operand.x.scalar_type(), "conv_fprop");
  cpu::ConvShape shape = shape_of_conv(operand.x, weight, conv);
  at::Tensor y = empty_last(operand.x, shape.K, shape.P, shape.Q), stats;
  cpu::Result result = result_of(y);
  result.finish = statistics ? cpu::Finish::kStatistics : cpu::Finish::kStore;
  if (statistics) {
    stats = empty_acc({2, shape.K}, operand.x);
  }
  bool after = statistics && given(epilogue.affine);  // of both, only one can be done on the way
  if (given(epilogue.affine) && !after) {
    check_rows(*epilogue.affine, 4, y, "epilogue");
    result.finish = cpu::Finish::kApply;
    result.affine = call.vector(epilogue.affine);
    result.relu = epilogue.relu;
    if (given(epilogue.residual)) {
      check_same(*epilogue.residual, y, "residual");
    }
    result.residual = call.activation(epilogue.residual);
    if (given(epilogue.residual_affine)) {
      check_rows(*epilogue.residual_affine, 4, y, "residual_affine");
    }
    result.residual_affine = call.vector(epilogue.residual_affine);
  }
  cpu::ConvWeights weights{weight.const_data_ptr(), strides_of(weight), nullptr};
  KeptWeights kept(weight, samples_);
  if (result.finish == cpu::Finish::kApply) {  // statistics of the batch: training
    weights.keep = [&](int64_t tag, int64_t bytes) { return kept.get(tag, bytes); };
  }
  cpu::conv_fprop(dtype, shape, weights, operand_of(call, operand), result,
                  statistics ? stats.mutable_data_ptr() : nullptr, call.allocate);
  kept.filled();
  if (after) {
    bn_apply_into(*this, y, kLast, y, *epilogue.affine, epilogue.relu, epilogue.residual, epilogue.residual_affine);
  }
  return {y.contiguous(conv_format(operand.x, weight)), stats};
}

Gradients CpuDevice::conv_backward(const GradParams& grad, const OperandParams& operand, const at::Tensor& weight,
                               const ConvParams& conv, bool reduce, const AddParams& add, const SumParams& sum,
                               bool want_dx, bool want_dw) {
  const at::Tensor& x = operand.x;
  Call call(x);
  auto dtype = dtype_of(x.scalar_type(), "conv_backward");
  cpu::ConvShape shape = shape_of_conv(x, weight, conv);
  check_grad_size(grad.grad, {shape.N, shape.K, shape.P, shape.Q});
  cpu::Operand draw = draw_of(call, grad), packed = operand_of(call, operand);
  at::Tensor dx, dw, sums;
  if (want_dx) {
    dx = empty_last(x, shape.C, shape.H, shape.W);
    cpu::Result result = result_of(dx);
    result.finish = cpu::Finish::kBackward;
    if (reduce) {
      sums = empty_acc({2, shape.C}, x);
      result.x = packed.x;
      result.affine = packed.affine;
      result.relu = operand.relu;
    }
    if (given(sum.raw)) {
      sums = empty_acc({given(sum.raw2) ? 3 : 2, shape.C}, x);
      result.x = packed.x;
      result.raw = call.activation(sum.raw);
      result.affine = call.vector(sum.affine);
      result.raw2 = call.activation(sum.raw2);
      result.affine2 = call.vector(sum.affine2);
    }
    if (given(add.add)) {
      check_same(*add.add, x, "add");
      result.add = call.activation(add.add);
    }
    if (given(add.out)) {
      check_same(*add.out, x, "add_out");
      result.add_out = call.activation(add.out);
    }
    cpu::conv_dgrad(dtype, shape, {weight.const_data_ptr(), strides_of(weight), nullptr}, draw, result,
                    sums.defined() ? sums.mutable_data_ptr() : nullptr, call.allocate);
    dx = dx.contiguous(conv_format(x, weight));
  }
  if (want_dw) {
    dw = at::empty(weight.sizes(), weight.options().memory_format(weight.suggest_memory_format()));
    cpu::conv_wgrad(dtype, shape, packed, draw, dw.mutable_data_ptr(), strides_of(dw), call.allocate);
  }
  return {dx, dw, sums};
}

}  // namespace resnet_fused
