// The operators, the same for every device. Activations are [N, C, H, W], float32, float64, bfloat16 or float16, in
// either memory format (others are copied into the one they resemble); `acc` is float64 for float64, else
// float32. z(x; affine) = (x - mean) * scale + shift, affine = acc [4, C]: mean, scale, shift, invstd.
//
// A Device lives as long as the operator's call and guards it; it has a function for each operation of
// ../common/params.h, and serves(), conv_fprop() and conv_backward() for the convolutions that it fuses itself.
#pragma once

#include <ATen/core/List.h>

#include <array>
#include <tuple>

#include "dense.h"

namespace resnet_fused {

// stats, acc [2, C]: mean and sum (x - mean)^2 over N, H, W.
template <typename Device>
at::Tensor bn_statistics(Device& device, const at::Tensor& x);

// affine from stats: invstd = 1 / sqrt(M2 / count + eps), scale = weight * invstd, shift = bias.
template <typename Device>
at::Tensor bn_finalize(Device& device, const at::Tensor& stats, int64_t count, const OptionalTensor& weight,
                       const OptionalTensor& bias, double eps);

// [relu](z(x) + (residual | z(residual; residual_affine) | nothing)), like x.
template <typename Device>
at::Tensor bn_apply(Device& device, const at::Tensor& x, const at::Tensor& affine, bool relu,
                    const OptionalTensor& residual, const OptionalTensor& residual_affine);

// relu(z(x) + (residual | z(residual; residual_affine))), like x, and its mask (dense.h): where not (y <= 0).
template <typename Device>
std::tuple<at::Tensor, at::Tensor> bn_apply_mask(Device& device, const at::Tensor& x, const at::Tensor& affine,
                                                 const at::Tensor& residual, const OptionalTensor& residual_affine);

// acc [1..3, C]: sum g, and with x, x2: sum g * (x - mean) * invstd of each. With relu, g is grad where not
// (out <= 0), or without out where not (z(x) <= 0).
template <typename Device>
at::Tensor bn_backward_reduce(Device& device, const at::Tensor& grad, const OptionalTensor& out,
                              const OptionalTensor& x, const OptionalTensor& affine, bool relu,
                              const OptionalTensor& x2, const OptionalTensor& affine2);

// g, which is grad where not (out <= 0), and bn_backward_reduce's sums of it. A mask of out in the order of x is read
// in its place, so that out need not be given then.
template <typename Device>
std::tuple<at::Tensor, at::Tensor> bn_backward_mask_reduce(Device& device, const at::Tensor& grad,
                                                           const OptionalTensor& out, const at::Tensor& x,
                                                           const at::Tensor& affine, const OptionalTensor& x2,
                                                           const OptionalTensor& affine2, const OptionalTensor& mask);

// scale * (g - means[0] - (x - mean) * invstd * means[1]), like x; means: acc [2, C].
template <typename Device>
at::Tensor bn_backward_apply(Device& device, const at::Tensor& grad, const OptionalTensor& out, const at::Tensor& x,
                             const at::Tensor& affine, bool relu, const at::Tensor& means);

// means = sums / count; sums' second and first row as gradients of weight and bias, [0] where those are not given.
template <typename Device>
std::tuple<at::Tensor, at::Tensor, at::Tensor> bn_backward_finalize(Device& device, const at::Tensor& sums,
                                                                    int64_t count, const OptionalTensor& weight,
                                                                    const OptionalTensor& bias);

// For each of stats: running_mean and running_var move towards mean and M2 / (count - 1) by momentum. Counters, as many
// as are given, are incremented.
template <typename Device>
void bn_update_running(Device& device, at::TensorList stats, at::IntArrayRef counts, at::ArrayRef<double> momenta,
                       at::TensorList means, at::TensorList vars, at::TensorList counters);

// bn_apply and bn_backward_apply, written to a dense tensor of the given format, which may be an input; and y's mask.
template <typename Device>
void bn_apply_into(Device& device, const at::Tensor& y, at::MemoryFormat format, const at::Tensor& x,
                   const at::Tensor& affine, bool relu, const OptionalTensor& residual,
                   const OptionalTensor& residual_affine, const OptionalTensor& mask = std::nullopt);
template <typename Device>
void bn_backward_apply_into(Device& device, const at::Tensor& draw, at::MemoryFormat format, const at::Tensor& grad,
                            const OptionalTensor& out, const at::Tensor& x, const at::Tensor& affine, bool relu,
                            const at::Tensor& means);
// sums of (grad, x) as bn_backward_reduce without out; and operand = [relu] z(x) in the same pass.
template <typename Device>
at::Tensor bn_backward_reduce_operand(Device& device, const at::Tensor& operand, at::MemoryFormat format,
                                      const at::Tensor& grad, const at::Tensor& x, const at::Tensor& affine, bool relu);
// y = base + (grad where not (out <= 0)); y is dense in format and may be base.
template <typename Device>
void mask_add_into(Device& device, const at::Tensor& y, at::MemoryFormat format, const OptionalTensor& base,
                   const at::Tensor& grad, const OptionalTensor& out);

// y = conv([relu] z(x; prologue), weight), then stats [2, K] of y if statistics, then with an epilogue
// y = [relu](z(y; epilogue) + residual), the residual as in bn_apply. Padding is zero after the prologue.
template <typename Device>
std::tuple<at::Tensor, at::Tensor> conv_fprop(Device& device, const at::Tensor& x, const at::Tensor& weight,
                                              at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
                                              int64_t groups, const OptionalTensor& prologue, bool prologue_relu,
                                              bool statistics, const OptionalTensor& epilogue,
                                              const OptionalTensor& residual, const OptionalTensor& residual_affine,
                                              bool relu);

// With draw = bn_backward_apply(grad, out, raw, affine, relu, means), or without raw the masked grad, and
// operand = [relu] z(x; prologue): dx = dgrad(draw, weight) + (add where not (add_out <= 0)),
// dw = wgrad(draw, operand), and with reduce sums = bn_backward_reduce(dx, x; prologue). With sum_raw, where x is the
// ReLU of a sum with z(sum_raw; sum_affine), dx, sums = bn_backward_mask_reduce(dx, x, sum_raw, ...).
template <typename Device>
std::tuple<at::Tensor, at::Tensor, at::Tensor> conv_backward(
    Device& device, const at::Tensor& grad, const OptionalTensor& out, const OptionalTensor& raw,
    const OptionalTensor& affine, const OptionalTensor& means, bool relu, const at::Tensor& x, const at::Tensor& weight,
    at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups,
    const OptionalTensor& prologue, bool prologue_relu, bool reduce, const OptionalTensor& add,
    const OptionalTensor& add_out, std::array<bool, 2> output_mask,
    const OptionalTensor& sum_raw = std::nullopt, const OptionalTensor& sum_affine = std::nullopt,
    const OptionalTensor& sum_raw2 = std::nullopt, const OptionalTensor& sum_affine2 = std::nullopt);

template <typename Device>
std::tuple<at::Tensor, at::Tensor> conv_dgrad(Device& device, const at::Tensor& grad, const OptionalTensor& out,
                                              const OptionalTensor& raw, const OptionalTensor& affine,
                                              const OptionalTensor& means, bool relu, const at::Tensor& x,
                                              const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
                                              at::IntArrayRef dilation, int64_t groups, const OptionalTensor& prologue,
                                              bool prologue_relu, bool reduce, const OptionalTensor& add,
                                              const OptionalTensor& add_out);

template <typename Device>
at::Tensor conv_wgrad(Device& device, const at::Tensor& grad, const OptionalTensor& out, const OptionalTensor& raw,
                      const OptionalTensor& affine, const OptionalTensor& means, bool relu, const at::Tensor& x,
                      const at::Tensor& weight, at::IntArrayRef stride, at::IntArrayRef padding,
                      at::IntArrayRef dilation, int64_t groups, const OptionalTensor& prologue, bool prologue_relu);

// Chains one after another, of each a_i = [relu] z_i(conv(a_{i-1}, weights[i])) from its input a_0, and to the last,
// before its ReLU, is added z(conv(a_0)) by a last weight (projection) or a_0 (identity). For each weight: norms, 4:
// weight, bias, running mean and variance; eps; geometry, 8: stride, padding and dilation, two each; groups; whether ReLU
// follows. For each chain: chains, 3: how many a_i; whether there is a projection, an identity.
template <typename Device>
at::Tensor frozen_chains(Device& device, const at::Tensor& x, at::TensorList weights,
                         const c10::List<OptionalTensor>& norms, at::ArrayRef<double> eps, at::IntArrayRef geometry,
                         at::IntArrayRef chains);

// MaxPool 3x3 / 2, padding 1, of relu(z(x)); index: uint8 like y, the winner's place 0..8 in its window, or
// 255 where no gradient flows.
template <typename Device>
std::tuple<at::Tensor, at::Tensor> stem_pool(Device& device, const at::Tensor& x, const at::Tensor& affine);
template <typename Device>
at::Tensor stem_pool_backward_reduce(Device& device, const at::Tensor& grad, const at::Tensor& index,
                                     const OptionalTensor& x, const OptionalTensor& affine);
template <typename Device>
at::Tensor stem_pool_backward_apply(Device& device, const at::Tensor& grad, const at::Tensor& index,
                                    at::IntArrayRef input_size, const OptionalTensor& x, const OptionalTensor& affine,
                                    const OptionalTensor& means);

}  // namespace resnet_fused
