// Residual chains with frozen batch norms in one call: at batch 1 a few calls cost as much as a small convolution.
#pragma once

#include "bn_operators.h"
#include "conv_operators.h"

namespace resnet_fused {

constexpr int64_t kGeometry = 8;  // stride, padding and dilation, two each; groups; whether ReLU follows
constexpr int64_t kNorm = 4;      // weight, bias, running mean, running variance
constexpr int64_t kChain = 3;     // convolutions one after another; whether there is a projection; an identity

template <typename Device>
at::Tensor frozen_chains(Device& device, const at::Tensor& x, at::TensorList weights,
                         const c10::List<OptionalTensor>& norms, at::ArrayRef<double> eps, at::IntArrayRef geometry,
                         at::IntArrayRef chains) {
  int64_t count = weights.size(), in_chains = 0;
  TORCH_CHECK(!chains.empty() && chains.size() % kChain == 0, "expected three numbers for each chain");
  for (size_t chain = 0; chain < chains.size(); chain += kChain) {
    int64_t length = chains[chain], projection = chains[chain + 1], identity = chains[chain + 2];
    TORCH_CHECK(0 < length && length <= count, "expected every chain to have convolutions of those given");
    TORCH_CHECK((projection | identity | 1) == 1, "expected 0 or 1 for a chain's projection and its identity");
    in_chains += length + projection;
  }
  TORCH_CHECK(in_chains == count && int64_t(norms.size()) == kNorm * count && int64_t(eps.size()) == count &&
                  int64_t(geometry.size()) == kGeometry * count,
              "expected norms, eps and geometry to be given for each weight, and each to be in a chain");
  std::vector<OptionalTensor> norm = norms.vec();
  auto run = [&](int64_t i, const at::Tensor& operand, const OptionalTensor& residual) {
    at::IntArrayRef g = geometry.slice(kGeometry * i, kGeometry);
    at::Tensor affine = frozen_affine(device, x, at::ArrayRef<OptionalTensor>(norm).slice(kNorm * i, kNorm), eps[i]);
    return std::get<0>(conv_fprop(device, operand, weights[i], g.slice(0, 2), g.slice(2, 2), g.slice(4, 2), g[6],
                                  std::nullopt, false, false, affine, residual, std::nullopt, g[7] != 0));
  };
  device.expect(weights);
  at::Tensor y = x;
  for (int64_t first = 0, next; !chains.empty(); chains = chains.slice(kChain), first = next) {
    int64_t last = first + chains[0] - 1;
    bool projection = chains[1] != 0, identity = chains[2] != 0;
    next = last + 1 + projection;
    OptionalTensor residual;
    if (projection) {
      residual = run(last + 1, y, std::nullopt);
    } else if (identity) {
      residual = y;
    }
    for (int64_t i = first; i <= last; ++i) {
      y = run(i, y, i == last ? residual : OptionalTensor());
    }
  }
  return y;
}

}  // namespace resnet_fused
