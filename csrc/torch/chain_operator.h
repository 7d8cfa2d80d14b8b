// A residual chain with frozen batch norms in one call: at batch 1 a dozen calls cost as much as a small convolution.
#pragma once

#include "bn_operators.h"
#include "conv_operators.h"

namespace resnet_fused {

constexpr int64_t kGeometry = 8;  // stride, padding and dilation, two each; groups; whether ReLU follows
constexpr int64_t kNorm = 4;      // weight, bias, running mean, running variance

template <typename Device>
at::Tensor frozen_chain(Device& device, const at::Tensor& x, at::TensorList weights,
                        const c10::List<OptionalTensor>& norms, at::ArrayRef<double> eps, at::IntArrayRef geometry,
                        bool projection, bool identity) {
  int64_t count = weights.size(), main = count - projection;
  TORCH_CHECK(main > 0 && int64_t(norms.size()) == kNorm * count && int64_t(eps.size()) == count &&
                  int64_t(geometry.size()) == kGeometry * count,
              "expected norms, eps and geometry to be given for each weight");
  std::vector<OptionalTensor> norm = norms.vec();
  auto run = [&](int64_t i, const at::Tensor& operand, const OptionalTensor& residual) {
    at::IntArrayRef g = geometry.slice(kGeometry * i, kGeometry);
    at::Tensor affine = frozen_affine(device, x, at::ArrayRef<OptionalTensor>(norm).slice(kNorm * i, kNorm), eps[i]);
    return std::get<0>(conv_fprop(device, operand, weights[i], g.slice(0, 2), g.slice(2, 2), g.slice(4, 2), g[6],
                                  std::nullopt, false, false, affine, residual, std::nullopt, g[7] != 0));
  };
  OptionalTensor residual;
  if (projection) {
    residual = run(main, x, std::nullopt);
  } else if (identity) {
    residual = x;
  }
  at::Tensor y = x;
  for (int64_t i = 0; i < main; ++i) {
    y = run(i, y, i + 1 == main ? residual : OptionalTensor());
  }
  return y;
}

}  // namespace resnet_fused
