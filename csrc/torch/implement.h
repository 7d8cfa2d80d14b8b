// Registers the operators for one device.
#pragma once

#include <torch/library.h>

#include "bn_operators.h"
#include "bn_vector_operators.h"
#include "chain_operator.h"
#include "conv_operators.h"
#include "stem_operators.h"

namespace resnet_fused {

// The tensor whose device an operator runs on.
inline const at::Tensor& first_tensor(const at::Tensor& t) {
  return t;
}
inline const at::Tensor& first_tensor(at::TensorList tensors) {
  TORCH_CHECK(!tensors.empty(), "expected at least one tensor");
  return tensors[0];
}

// An operator's function without its first argument, a Device, which lives as long as the call.
template <auto function>
struct Operator;
template <typename Device, typename Result, typename First, typename... Rest,
          Result (*function)(Device&, First, Rest...)>
struct Operator<function> {
  static Result call(First first, Rest... rest) {
    Device device(first_tensor(first));
    return function(device, first, rest...);
  }
};

// A device whose convolutions are all the library's, with its own passes around them.
template <typename Device>
class LibraryConvolutions : public Device {
 public:
  using Device::Device;
  bool serves(const at::Tensor&, const at::Tensor&, const ConvParams&) {
    return false;
  }
  void expect(at::TensorList) {}
};

// `Convolving` is the device that the convolutions' operators run on.
template <typename Device, typename Convolving = Device>
void implement(torch::Library& m) {
  m.impl("bn_statistics", TORCH_FN(Operator<bn_statistics<Device>>::call));
  m.impl("bn_finalize", TORCH_FN(Operator<bn_finalize<Device>>::call));
  m.impl("bn_apply", TORCH_FN(Operator<bn_apply<Device>>::call));
  m.impl("bn_apply_mask", TORCH_FN(Operator<bn_apply_mask<Device>>::call));
  m.impl("bn_backward_reduce", TORCH_FN(Operator<bn_backward_reduce<Device>>::call));
  m.impl("bn_backward_mask_reduce", TORCH_FN(Operator<bn_backward_mask_reduce<Device>>::call));
  m.impl("bn_backward_apply", TORCH_FN(Operator<bn_backward_apply<Device>>::call));
  m.impl("bn_backward_finalize", TORCH_FN(Operator<bn_backward_finalize<Device>>::call));
  m.impl("bn_update_running", TORCH_FN(Operator<bn_update_running<Device>>::call));
  m.impl("conv_fprop", TORCH_FN(Operator<conv_fprop<Convolving>>::call));
  m.impl("conv_backward", TORCH_FN(Operator<conv_backward<Convolving>>::call));
  m.impl("conv_dgrad", TORCH_FN(Operator<conv_dgrad<Convolving>>::call));
  m.impl("conv_wgrad", TORCH_FN(Operator<conv_wgrad<Convolving>>::call));
  m.impl("frozen_chains", TORCH_FN(Operator<frozen_chains<Convolving>>::call));
  m.impl("stem_pool", TORCH_FN(Operator<stem_pool<Device>>::call));
  m.impl("stem_pool_backward_reduce", TORCH_FN(Operator<stem_pool_backward_reduce<Device>>::call));
  m.impl("stem_pool_backward_apply", TORCH_FN(Operator<stem_pool_backward_apply<Device>>::call));
}

}  // namespace resnet_fused
