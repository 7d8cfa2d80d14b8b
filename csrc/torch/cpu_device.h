// What the operators need of the CPU (operators.h).
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>

#include "../cpu/bn.h"
#include "../cpu/stem.h"
#include "allocator.h"
#include "conv_arguments.h"
#include "cpu_vectors.h"
#include "weight_cache.h"

namespace resnet_fused {

class CpuDevice {
 public:
  // A training step of ResNet-50 is no shorter with masks, and keeps 0.7 % more.
  static constexpr bool kMasks = false;

  explicit CpuDevice(const at::Tensor&) {}

  void bn_statistics(DType dtype, const StatisticsParams& params) {
    cpu::bn_statistics(dtype, params);
  }
  void bn_finalize(DType acc, const FinalizeParams& params) {
    cpu::bn_finalize(acc, params);
  }
  void bn_apply(DType dtype, const ApplyParams& params) {
    cpu::bn_apply(dtype, params);
  }
  void bn_backward_reduce(DType dtype, const BackwardReduceParams& params) {
    cpu::bn_backward_reduce(dtype, params);
  }
  void bn_backward_apply(DType dtype, const BackwardApplyParams& params) {
    cpu::bn_backward_apply(dtype, params);
  }
  void bn_backward_finalize(DType acc, const BackwardFinalizeParams& params) {
    cpu_bn_backward_finalize(acc, params);
  }
  void bn_update_running(DType acc, const UpdateRunningParams& params) {
    cpu_bn_update_running(acc, params);
  }
  void mask_add(DType dtype, const MaskAddParams& params) {
    cpu::mask_add(dtype, params);
  }
  void stem_pool(DType dtype, const StemPoolParams& params) {
    cpu::stem_pool(dtype, params);
  }
  void stem_pool_backward_reduce(DType dtype, const StemPoolBackwardParams& params) {
    cpu::stem_pool_backward_reduce(dtype, params);
  }
  void stem_pool_backward_apply(DType dtype, const StemPoolBackwardParams& params) {
    cpu::stem_pool_backward_apply(dtype, params);
  }

  // Whether the engine (../cpu/conv.h) takes the problem; arguments that are no convolution are left to the library,
  // whose errors are eager's.
  bool serves(const at::Tensor& x, const at::Tensor& weight, const ConvParams& conv);
  // That convolutions with these weights follow.
  void expect(at::TensorList weights) {
    samples_.take(weights);
  }
  std::tuple<at::Tensor, at::Tensor> conv_fprop(const OperandParams& operand, const at::Tensor& weight,
                                                const ConvParams& conv, bool statistics,
                                                const EpilogueParams& epilogue);
  Gradients conv_backward(const GradParams& grad, const OperandParams& operand, const at::Tensor& weight,
                          const ConvParams& conv, bool reduce, const AddParams& add, const SumParams& sum, bool want_dx,
                          bool want_dw);

 private:
  // Within an operator, aten calls record no graph and are not autocast: that is the caller's part. Large results and
  // temporaries come from the pool.
  at::AutoDispatchBelowADInplaceOrView below_autograd_;
  c10::impl::ExcludeDispatchKeyGuard no_autocast_{c10::autocast_dispatch_keyset};
  PooledAllocations pooled_;
  WeightSamples samples_;
};

}  // namespace resnet_fused
