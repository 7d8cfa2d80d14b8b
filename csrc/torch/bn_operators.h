// The batch norm operators: checks, then a device's kernels on dense tensors.
#pragma once

#include "../common/params.h"
#include "checks.h"
#include "operators.h"

namespace resnet_fused {

inline Mask mask_of(bool relu, const OptionalTensor& out) {
  return !relu ? Mask::kNone : given(out) ? Mask::kOutput : Mask::kAffine;
}

inline void check_with_affine(const at::Tensor& x, const OptionalTensor& affine, const char* name) {
  TORCH_CHECK(given(affine), "expected ", name, " to be given");
  check_rows(*affine, 4, x, name);
}

struct ReduceInputs {
  OptionalTensor out, x, affine, x2, affine2, mask;
};

inline void check_reduce(const at::Tensor& grad, const ReduceInputs& in, bool relu) {
  check_activation(grad);
  if (given(in.out)) {
    check_same(*in.out, grad, "out");
  }
  if (given(in.mask)) {
    check_mask(*in.mask, grad, "mask");
  }
  if (given(in.x)) {
    check_same(*in.x, grad, "x");
    check_with_affine(grad, in.affine, "affine");
  } else {
    TORCH_CHECK(!relu || given(in.out), "expected x or out to be given with relu");
    TORCH_CHECK(!given(in.x2), "expected x to be given with x2");
  }
  if (given(in.x2)) {
    check_same(*in.x2, grad, "x2");
    check_with_affine(grad, in.affine2, "affine2");
  }
}

template <typename Device>
at::Tensor reduce(Device& device, const at::Tensor& grad, const ReduceInputs& in, bool relu, at::MemoryFormat format,
                  const OptionalTensor& operand, const OptionalTensor& masked) {
  auto dtype = dtype_of(grad.scalar_type(), "bn_backward_reduce");
  OptionalTensor bits = Device::kMasks ? dense_mask(in.mask, grad, format) : std::nullopt;
  TORCH_CHECK(!masked || bits || given(in.out), "expected out", Device::kMasks ? " or its mask in the order of x" : "",
              " to be given");
  Mask mask = bits ? Mask::kBits : mask_of(relu, in.out);
  at::Tensor g = grad.contiguous(format);
  OptionalTensor out = mask == Mask::kOutput ? dense(in.out, format) : std::nullopt;
  OptionalTensor x = dense(in.x, format), x2 = dense(in.x2, format);
  OptionalTensor affine = dense(in.affine), affine2 = dense(in.affine2);
  at::Tensor sums = empty_acc({x2 ? 3 : x ? 2 : 1, grad.size(1)}, grad);
  if (grad.numel() == 0) {  // the pointers of empty tensors are null, as of those not given
    return sums.zero_();
  }
  auto written = [](const OptionalTensor& t) { return t ? t->mutable_data_ptr() : nullptr; };
  device.bn_backward_reduce(dtype, {shape_of(g, format), g.const_data_ptr(), pointer(out), pointer(x), pointer(affine),
                                    pointer(x2), pointer(affine2), written(operand), written(masked), mask,
                                    sums.mutable_data_ptr(), static_cast<const uint8_t*>(pointer(bits))});
  return sums;
}

template <typename Device>
at::Tensor bn_statistics(Device& device, const at::Tensor& x) {
  check_activation(x);
  auto dtype = dtype_of(x.scalar_type(), "batch_norm");
  auto format = x.suggest_memory_format();
  at::Tensor xd = x.contiguous(format);
  at::Tensor stats = empty_acc({2, x.size(1)}, x);
  if (x.numel() == 0) {
    return stats.zero_();
  }
  device.bn_statistics(dtype, {shape_of(xd, format), xd.const_data_ptr(), stats.mutable_data_ptr()});
  return stats;
}

// A vector that is given, in the accumulation type of `rows`, [..., C].
inline OptionalTensor acc_vector(const OptionalTensor& t, const at::Tensor& rows, const char* name) {
  if (!given(t)) {
    return std::nullopt;
  }
  check_channels(*t, rows, name);
  return t->to(acc_type(rows.scalar_type())).contiguous();
}

template <typename Device>
at::Tensor bn_finalize(Device& device, const at::Tensor& stats, int64_t count, const OptionalTensor& weight,
                       const OptionalTensor& bias, double eps) {
  TORCH_CHECK(stats.dim() == 2 && stats.size(0) == 2, "stats should have size [2, C], but got ", stats.sizes());
  TORCH_CHECK(stats.scalar_type() == at::kFloat || stats.scalar_type() == at::kDouble,
              "expected stats to have dtype Float or Double, but got ", stats.scalar_type());
  OptionalTensor w = acc_vector(weight, stats, "weight"), b = acc_vector(bias, stats, "bias");
  at::Tensor s = stats.contiguous(), affine = empty_acc({4, stats.size(1)}, stats);
  DType acc = dtype_of(stats.scalar_type(), "bn_finalize");
  const char* mean = static_cast<const char*>(s.const_data_ptr());
  device.bn_finalize(acc, {s.size(1), mean, mean + s.size(1) * element_bytes(acc), count, pointer(w), pointer(b), eps,
                           affine.mutable_data_ptr()});
  return affine;
}

// The same of running statistics, in x's accumulation type.
template <typename Device>
at::Tensor frozen_affine(Device& device, const at::Tensor& x, at::ArrayRef<OptionalTensor> norm, double eps) {
  TORCH_CHECK(given(norm[2]) && given(norm[3]), "expected running_mean and running_var to be given");
  at::Tensor affine = empty_acc({4, norm[2]->numel()}, x);
  OptionalTensor w = acc_vector(norm[0], affine, "weight"), b = acc_vector(norm[1], affine, "bias");
  OptionalTensor mean = acc_vector(norm[2], affine, "running_mean"), var = acc_vector(norm[3], affine, "running_var");
  device.bn_finalize(dtype_of(affine.scalar_type(), "bn_finalize"),
                     {affine.size(1), pointer(mean), pointer(var), 1, pointer(w), pointer(b), eps,
                      affine.mutable_data_ptr()});
  return affine;
}

template <typename Device>
void bn_apply_into(Device& device, const at::Tensor& y, at::MemoryFormat format, const at::Tensor& x,
                   const at::Tensor& affine, bool relu, const OptionalTensor& residual,
                   const OptionalTensor& residual_affine, const OptionalTensor& mask) {
  check_activation(x);
  auto dtype = dtype_of(x.scalar_type(), "batch_norm");
  check_rows(affine, 4, x, "affine");
  if (given(residual)) {
    check_same(*residual, x, "residual");
  }
  if (given(residual_affine)) {
    TORCH_CHECK(given(residual), "expected residual to be given with residual_affine");
    check_rows(*residual_affine, 4, x, "residual_affine");
  }
  at::Tensor xd = x.contiguous(format), a = affine.contiguous();
  OptionalTensor r = dense(residual, format), ra = dense(residual_affine);
  device.bn_apply(dtype, {shape_of(xd, format), xd.const_data_ptr(), a.const_data_ptr(), pointer(r), pointer(ra),
                          y.mutable_data_ptr(), relu, mask ? mask->mutable_data_ptr<uint8_t>() : nullptr});
}

template <typename Device>
at::Tensor bn_apply(Device& device, const at::Tensor& x, const at::Tensor& affine, bool relu,
                    const OptionalTensor& residual, const OptionalTensor& residual_affine) {
  check_activation(x);
  auto format = x.suggest_memory_format();
  at::Tensor y = empty_dense(x, format);
  bn_apply_into(device, y, format, x, affine, relu, residual, residual_affine);
  return y;
}

template <typename Device>
std::tuple<at::Tensor, at::Tensor> bn_apply_mask(Device& device, const at::Tensor& x, const at::Tensor& affine,
                                                 const at::Tensor& residual, const OptionalTensor& residual_affine) {
  check_activation(x);
  auto format = x.suggest_memory_format();
  at::Tensor y = empty_dense(x, format), mask = empty_mask(x, format, Device::kMasks);
  bool none = mask.dim() == 1;
  bn_apply_into(device, y, format, x, affine, true, residual, residual_affine,
                none ? std::nullopt : OptionalTensor(mask));
  return {y, mask};
}

template <typename Device>
at::Tensor bn_backward_reduce(Device& device, const at::Tensor& grad, const OptionalTensor& out,
                              const OptionalTensor& x, const OptionalTensor& affine, bool relu,
                              const OptionalTensor& x2, const OptionalTensor& affine2) {
  ReduceInputs in{out, x, affine, x2, affine2, std::nullopt};
  check_reduce(grad, in, relu);
  return reduce(device, grad, in, relu, (given(x) ? *x : grad).suggest_memory_format(), std::nullopt, std::nullopt);
}

template <typename Device>
std::tuple<at::Tensor, at::Tensor> bn_backward_mask_reduce(Device& device, const at::Tensor& grad,
                                                           const OptionalTensor& out, const at::Tensor& x,
                                                           const at::Tensor& affine, const OptionalTensor& x2,
                                                           const OptionalTensor& affine2, const OptionalTensor& mask) {
  ReduceInputs in{out, x, affine, x2, affine2, mask};
  check_reduce(grad, in, true);
  auto format = x.suggest_memory_format();
  at::Tensor g = empty_dense(grad, format);
  return {g, reduce(device, grad, in, true, format, std::nullopt, g)};
}

template <typename Device>
at::Tensor bn_backward_reduce_operand(Device& device, const at::Tensor& operand, at::MemoryFormat format,
                                      const at::Tensor& grad, const at::Tensor& x, const at::Tensor& affine,
                                      bool relu) {
  ReduceInputs in{std::nullopt, x, affine, std::nullopt, std::nullopt, std::nullopt};
  check_reduce(grad, in, relu);
  return reduce(device, grad, in, relu, format, operand, std::nullopt);
}

template <typename Device>
void bn_backward_apply_into(Device& device, const at::Tensor& draw, at::MemoryFormat format, const at::Tensor& grad,
                            const OptionalTensor& out, const at::Tensor& x, const at::Tensor& affine, bool relu,
                            const at::Tensor& means) {
  check_activation(x);
  auto dtype = dtype_of(x.scalar_type(), "bn_backward_apply");
  check_same(grad, x, "grad");
  check_rows(affine, 4, x, "affine");
  check_rows(means, 2, x, "means");
  if (given(out)) {
    check_same(*out, x, "out");
  }
  Mask mask = mask_of(relu, out);
  at::Tensor g = grad.contiguous(format), xd = x.contiguous(format);
  at::Tensor a = affine.contiguous(), m = means.contiguous();
  OptionalTensor o = mask == Mask::kOutput ? dense(out, format) : std::nullopt;
  device.bn_backward_apply(dtype, {shape_of(xd, format), g.const_data_ptr(), pointer(o), xd.const_data_ptr(),
                                   a.const_data_ptr(), m.const_data_ptr(), draw.mutable_data_ptr(), mask});
}

template <typename Device>
at::Tensor bn_backward_apply(Device& device, const at::Tensor& grad, const OptionalTensor& out, const at::Tensor& x,
                             const at::Tensor& affine, bool relu, const at::Tensor& means) {
  check_activation(x);
  auto format = x.suggest_memory_format();
  at::Tensor draw = empty_dense(x, format);
  bn_backward_apply_into(device, draw, format, grad, out, x, affine, relu, means);
  return draw;
}

template <typename Device>
void mask_add_into(Device& device, const at::Tensor& y, at::MemoryFormat format, const OptionalTensor& base,
                   const at::Tensor& grad, const OptionalTensor& out) {
  check_same(grad, y, "grad");
  if (given(out)) {
    check_same(*out, y, "out");
  }
  at::Tensor g = grad.contiguous(format);
  OptionalTensor b = dense(base, format), o = dense(out, format);
  device.mask_add(dtype_of(y.scalar_type(), "mask_add"),
                  {y.numel(), pointer(b), g.const_data_ptr(), pointer(o), y.mutable_data_ptr()});
}

}  // namespace resnet_fused
