// What a device's own convolutions share: whether a problem is one, its output's size, and the tensors of a call.
#pragma once

#include <utility>
#include <vector>

#include "conv_arguments.h"

namespace resnet_fused {

// (size + 2 padding - dilation (filter - 1) - 1) / stride + 1
inline int64_t output_extent(int64_t size, int64_t filter, const ConvParams& conv, int axis) {
  int64_t reach = size + 2 * conv.padding[axis] - conv.dilation[axis] * (filter - 1) - 1;
  return reach < 0 ? 0 : reach / conv.stride[axis] + 1;
}

// Anything else is left to the library, whose errors are eager's.
inline bool is_convolution(const at::Tensor& x, const at::Tensor& weight, const ConvParams& conv) {
  if (weight.scalar_type() != x.scalar_type() || weight.device() != x.device() || weight.dim() != 4 ||
      conv.groups < 1 || conv.stride.size() != 2 || conv.padding.size() != 2 || conv.dilation.size() != 2 ||
      x.numel() == 0 || weight.numel() == 0 || !is_allocated(x) || !is_allocated(weight)) {
    return false;
  }
  for (int axis = 0; axis < 2; ++axis) {
    if (conv.stride[axis] < 1 || conv.padding[axis] < 0 || conv.dilation[axis] < 1 ||
        output_extent(x.size(2 + axis), weight.size(2 + axis), conv, axis) < 1) {
      return false;
    }
  }
  return weight.size(1) * conv.groups == x.size(1) && weight.size(0) % conv.groups == 0;
}

// Keeps what an operation's raw pointers point into until it is over.
class KeptTensors {
 public:
  const void* activation(const OptionalTensor& t) {
    return given(t) ? keep(t->contiguous(at::MemoryFormat::ChannelsLast)).const_data_ptr() : nullptr;
  }
  const void* vector(const OptionalTensor& t) {
    return given(t) ? keep(t->contiguous()).const_data_ptr() : nullptr;
  }
  const at::Tensor& keep(at::Tensor t) {
    kept_.push_back(std::move(t));
    return kept_.back();
  }

 private:
  std::vector<at::Tensor> kept_;
};

inline at::Tensor empty_last(const at::Tensor& x, int64_t channels, int64_t height, int64_t width) {
  return at::empty({x.size(0), channels, height, width}, x.options().memory_format(at::MemoryFormat::ChannelsLast));
}

inline void check_grad_size(const at::Tensor& grad, at::IntArrayRef size) {
  TORCH_CHECK(grad.sizes() == size, "grad should have size ", size, ", but got ", grad.sizes());
}

}  // namespace resnet_fused
