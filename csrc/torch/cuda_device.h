// What the operators need of a CUDA device (operators.h). Nothing here waits for the device; temporary memory is
// PyTorch's, which reuses it in the stream's order. So an operator may be captured into a CUDA graph.
#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/DeviceGuard.h>

#include "../cuda/bn.h"
#include "../cuda/stem.h"
#include "conv_arguments.h"
#include "cuda_context.h"

namespace resnet_fused {

class CudaDevice {
 public:
  static constexpr bool kMasks = true;  // of ReLUs behind sums, as bits

  explicit CudaDevice(const at::Tensor& x)
      : device_(x.device()),
        stream_(current_stream(x)),
        bytes_(x.options().dtype(at::kByte).memory_format(at::MemoryFormat::Contiguous)) {}

  void bn_statistics(DType dtype, const StatisticsParams& params) {
    at::Tensor memory = workspace(cuda::bn_statistics_workspace(dtype, params));
    cuda::bn_statistics(dtype, params, memory.mutable_data_ptr(), stream_);
  }
  void bn_finalize(DType acc, const FinalizeParams& params) {
    cuda::bn_finalize(acc, params, stream_);
  }
  void bn_apply(DType dtype, const ApplyParams& params) {
    cuda::bn_apply(dtype, params, stream_);
  }
  void bn_backward_reduce(DType dtype, const BackwardReduceParams& params) {
    at::Tensor memory = workspace(cuda::bn_backward_reduce_workspace(dtype, params));
    cuda::bn_backward_reduce(dtype, params, memory.mutable_data_ptr(), stream_);
  }
  void bn_backward_apply(DType dtype, const BackwardApplyParams& params) {
    cuda::bn_backward_apply(dtype, params, stream_);
  }
  void bn_backward_finalize(DType acc, const BackwardFinalizeParams& params) {
    cuda::bn_backward_finalize(acc, params, stream_);
  }
  void bn_update_running(DType acc, const UpdateRunningParams& params) {
    cuda::bn_update_running(acc, params, stream_);
  }
  void mask_add(DType dtype, const MaskAddParams& params) {
    cuda::mask_add(dtype, params, stream_);
  }
  void stem_pool(DType dtype, const StemPoolParams& params) {
    cuda::stem_pool(dtype, params, stream_);
  }
  void stem_pool_backward_reduce(DType dtype, const StemPoolBackwardParams& params) {
    at::Tensor memory = workspace(cuda::stem_pool_backward_reduce_workspace(dtype, params));
    cuda::stem_pool_backward_reduce(dtype, params, memory.mutable_data_ptr(), stream_);
  }
  void stem_pool_backward_apply(DType dtype, const StemPoolBackwardParams& params) {
    cuda::stem_pool_backward_apply(dtype, params, stream_);
  }

  // Whether ../cuda/conv.h takes the problem: channels last, not float64.
  bool serves(const at::Tensor& x, const at::Tensor& weight, const ConvParams& conv);
  void expect(at::TensorList) {}
  std::tuple<at::Tensor, at::Tensor> conv_fprop(const OperandParams& operand, const at::Tensor& weight,
                                                const ConvParams& conv, bool statistics,
                                                const EpilogueParams& epilogue);
  Gradients conv_backward(const GradParams& grad, const OperandParams& operand, const at::Tensor& weight,
                          const ConvParams& conv, bool reduce, const AddParams& add, const SumParams& sum, bool want_dx,
                          bool want_dw);

 private:
  at::Tensor workspace(int64_t bytes) const {
    return at::empty({bytes}, bytes_);
  }

  // Within an operator, aten calls record no graph and are not autocast: that is the caller's part.
  at::AutoDispatchBelowADInplaceOrView below_autograd_;
  c10::impl::ExcludeDispatchKeyGuard no_autocast_{c10::autocast_dispatch_keyset};
  c10::DeviceGuard device_;
  cudaStream_t stream_;
  at::TensorOptions bytes_;
};

}  // namespace resnet_fused
