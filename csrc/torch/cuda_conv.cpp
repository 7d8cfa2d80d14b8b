// Convolutions by the kernels of csrc/cuda: tensors to their arguments.
#include "../cuda/heuristics.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/mul.h>

#include <algorithm>
#include <limits>

#include "bn_operators.h"
#include "conv_call.h"
#include "conv_library.h"
#include "cuda_device.h"

namespace resnet_fused {
namespace {

constexpr auto kLast = at::MemoryFormat::ChannelsLast;
const OptionalTensor kNone;

bool fits_int(std::initializer_list<at::IntArrayRef> sizes) {
  return std::all_of(sizes.begin(), sizes.end(), [](at::IntArrayRef s) {
    return std::all_of(s.begin(), s.end(), [](int64_t n) { return n <= std::numeric_limits<int>::max(); });
  });
}

cuda::ConvProblem problem_of(const at::Tensor& x, const at::Tensor& weight, const ConvParams& conv) {
  auto pair = [](at::IntArrayRef values, int (&into)[2]) { std::copy(values.begin(), values.end(), into); };
  cuda::ConvShape s{};
  s.N = x.size(0);
  s.C = x.size(1);
  s.H = x.size(2);
  s.W = x.size(3);
  s.K = weight.size(0);
  s.R = weight.size(2);
  s.S = weight.size(3);
  s.P = output_extent(x.size(2), weight.size(2), conv, 0);
  s.Q = output_extent(x.size(3), weight.size(3), conv, 1);
  pair(conv.stride, s.stride);
  pair(conv.padding, s.padding);
  pair(conv.dilation, s.dilation);
  s.groups = conv.groups;
  return {dtype_of(x.scalar_type(), "convolution"), allow_tf32(), s, device_limits(x)};
}

cuda::ActivationTensor activation_of(KeptTensors& kept, const OperandParams& o) {
  if (given(o.prologue)) {
    check_rows(*o.prologue, 4, o.x, "prologue");
  }
  return {kept.activation(o.x), static_cast<const float*>(kept.vector(o.prologue)), o.relu};
}

cuda::DrawTensor draw_of(KeptTensors& kept, const GradParams& g) {
  cuda::DrawTensor draw{};
  draw.grad = kept.activation(g.grad);
  draw.relu = g.relu;
  if (given(g.out)) {
    check_same(*g.out, g.grad, "out");
    draw.out = g.relu ? kept.activation(g.out) : nullptr;
  }
  if (given(g.raw)) {
    check_same(*g.raw, g.grad, "raw");
    check_rows(*g.affine, 4, g.grad, "affine");
    check_rows(*g.means, 2, g.grad, "means");
    draw.raw = kept.activation(g.raw);
    draw.affine = static_cast<const float*>(kept.vector(g.affine));
    draw.mean_g = static_cast<const float*>(kept.vector(g.means->select(0, 0)));
    draw.slope = static_cast<const float*>(kept.vector(at::mul(g.means->select(0, 1), g.affine->select(0, 3))));
  }
  return draw;
}

// x, its prologue and the weights with channels of zeros, to as many as the kernels copy at once.
struct PaddedOperand {
  at::Tensor x, weight;
  OptionalTensor prologue;

  PaddedOperand(const OperandParams& o, const at::Tensor& w, int64_t channels)
      : x(at::constant_pad_nd(o.x.contiguous(kLast), {0, 0, 0, 0, 0, channels - o.x.size(1)})),
        weight(at::constant_pad_nd(w, {0, 0, 0, 0, 0, channels - w.size(1)})) {
    if (given(o.prologue)) {
      check_rows(*o.prologue, 4, o.x, "prologue");
      prologue = at::constant_pad_nd(*o.prologue, {0, channels - o.x.size(1)});
    }
  }
};

// To how many channels the operand is padded; 0: it is taken as it is.
int64_t channels_to_pad_to(const cuda::ConvProblem& problem) {
  cuda::ConvProblem padded = problem;
  padded.shape.C = cuda::padded_channels(problem);
  return padded.shape.C != problem.shape.C && !cuda::conv_unsupported(padded) ? padded.shape.C : 0;
}

float* floats(const at::Tensor& t) {
  return t.defined() ? t.mutable_data_ptr<float>() : nullptr;
}

}  // namespace

bool CudaDevice::serves(const at::Tensor& x, const at::Tensor& weight, const ConvParams& conv) {
  return conv_format(x, weight) == kLast && is_convolution(x, weight, conv) &&
         fits_int({x.sizes(), weight.sizes(), conv.stride, conv.padding, conv.dilation, {conv.groups}}) &&
         !cuda::conv_unsupported(problem_of(x, weight, conv));
}

std::tuple<at::Tensor, at::Tensor> CudaDevice::conv_fprop(const OperandParams& operand, const at::Tensor& weight,
                                                          const ConvParams& conv, bool statistics,
                                                          const EpilogueParams& epilogue) {
  cuda::ConvProblem problem = problem_of(operand.x, weight, conv);
  if (int64_t channels = channels_to_pad_to(problem)) {
    PaddedOperand padded(operand, weight, channels);
    return conv_fprop({padded.x, padded.prologue, operand.relu}, padded.weight, conv, statistics, epilogue);
  }
  if (given(operand.prologue) && cuda::forms_input_in_memory(problem)) {
    at::Tensor formed = form_operand(*this, operand);
    return conv_fprop({formed, kNone, false}, weight, conv, statistics, epilogue);
  }
  KeptTensors kept;
  cuda::ConvFpropParams params{};
  params.problem = problem;
  const cuda::ConvShape& shape = problem.shape;
  at::Tensor y = empty_last(operand.x, shape.K, shape.P, shape.Q), stats;
  params.input = activation_of(kept, operand);
  params.w = kept.activation(weight);
  params.y = y.mutable_data_ptr();
  if (statistics) {
    stats = empty_acc({2, shape.K}, operand.x);
    params.stats = floats(stats);
  }
  bool after = statistics && given(epilogue.affine);  // of both, only one can be done on the way
  if (given(epilogue.affine) && !after) {
    check_rows(*epilogue.affine, 4, y, "epilogue");
    params.epilogue = static_cast<const float*>(kept.vector(epilogue.affine));
    params.relu = epilogue.relu;
    if (given(epilogue.residual)) {
      check_same(*epilogue.residual, y, "residual");
      params.residual = kept.activation(epilogue.residual);
    }
    if (given(epilogue.residual_affine)) {
      check_rows(*epilogue.residual_affine, 4, y, "residual_affine");
      params.residual_affine = static_cast<const float*>(kept.vector(epilogue.residual_affine));
    }
  }
  at::Tensor memory = workspace(cuda::conv_fprop_workspace(params));
  cuda::launch_conv_fprop(params, memory.mutable_data_ptr(), stream_);
  if (after) {
    bn_apply_into(*this, y, kLast, y, *epilogue.affine, epilogue.relu, epilogue.residual, epilogue.residual_affine);
  }
  return {y, stats};
}

Gradients CudaDevice::conv_backward(const GradParams& grad, const OperandParams& operand, const at::Tensor& weight,
                                    const ConvParams& conv, bool reduce, const AddParams& add, const SumParams& sum,
                                    bool want_dx, bool want_dw) {
  const at::Tensor& x = operand.x;
  KeptTensors kept;
  cuda::ConvProblem problem = problem_of(x, weight, conv);
  const cuda::ConvShape& shape = problem.shape;
  check_grad_size(grad.grad, {shape.N, shape.K, shape.P, shape.Q});
  if ((grad.relu || given(grad.raw)) && cuda::forms_draw_in_memory(problem, want_dx, want_dw)) {
    at::Tensor formed = form_draw(*this, grad, kLast);
    return conv_backward({formed, kNone, kNone, kNone, kNone, false}, operand, weight, conv, reduce, add, sum, want_dx,
                         want_dw);
  }
  cuda::DrawTensor draw = draw_of(kept, grad);
  int64_t channels = channels_to_pad_to(problem);
  cuda::ActivationTensor input{};
  if (want_dx || !channels) {
    input = activation_of(kept, operand);
  }
  at::Tensor dx, dw, sums;
  if (want_dx) {
    dx = empty_last(x, shape.C, shape.H, shape.W);
    cuda::ConvDgradParams params{problem, draw, kept.activation(weight), dx.mutable_data_ptr()};
    if (given(add.add)) {
      check_same(*add.add, x, "add");
      params.add = kept.activation(add.add);
    }
    if (given(add.out)) {
      check_same(*add.out, x, "add_out");
      params.add_out = kept.activation(add.out);
    }
    if (reduce) {
      sums = empty_acc({2, shape.C}, x);
      params.sums = floats(sums);
      params.input = input;
    }
    at::Tensor memory = workspace(cuda::conv_dgrad_workspace(params));
    cuda::launch_conv_dgrad(params, memory.mutable_data_ptr(), stream_);
    if (given(sum.raw)) {
      std::tie(dx, sums) = masked_sums(*this, dx, x, sum, kLast);
    }
  }
  if (want_dw) {
    if (channels) {
      PaddedOperand padded(operand, weight, channels);
      dw = std::get<1>(conv_backward(grad, {padded.x, padded.prologue, operand.relu}, padded.weight, conv, false,
                                     {kNone, kNone}, {kNone, kNone, kNone, kNone}, false, true));
      return {dx, dw.narrow(1, 0, shape.C), sums};
    }
    if (given(operand.prologue) && cuda::forms_input_in_memory(problem)) {
      input = activation_of(kept, {kept.keep(form_operand(*this, operand)), kNone, false});
    }
    dw = at::empty(weight.sizes(), weight.options().memory_format(kLast));
    cuda::ConvWgradParams params{problem, draw, input, dw.mutable_data_ptr()};
    at::Tensor memory = workspace(cuda::conv_wgrad_workspace(params));
    cuda::launch_conv_wgrad(params, memory.mutable_data_ptr(), stream_);
  }
  return {dx, dw, sums};
}

}  // namespace resnet_fused
