// Tensors as the kernels want them: dense in one of two memory formats, with raw pointers.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <optional>

#include "../common/types.h"

namespace resnet_fused {

using OptionalTensor = std::optional<at::Tensor>;

inline bool given(const OptionalTensor& t) {
  return t.has_value() && t->defined();
}

// Uninitialised, of x's size and dtype.
inline at::Tensor empty_dense(const at::Tensor& x, at::MemoryFormat format) {
  return at::empty(x.sizes(), x.options().memory_format(format));
}

inline Shape shape_of(const at::Tensor& x, at::MemoryFormat format) {
  Shape s{x.size(0), x.size(1), x.size(2) * x.size(3), format == at::MemoryFormat::ChannelsLast};
  // One pixel or one channel is the same memory in both formats; take the longer inner loop.
  if (s.pixels == 1 || s.channels == 1) {
    s.channels_last = s.pixels == 1;
  }
  return s;
}

// Null for a tensor that is not given; else it must be contiguous and outlive the pointer.
inline const void* pointer(const OptionalTensor& t) {
  return given(t) ? t->const_data_ptr() : nullptr;
}

inline OptionalTensor dense(const OptionalTensor& t, at::MemoryFormat format) {
  return given(t) ? OptionalTensor(t->contiguous(format)) : std::nullopt;
}
inline OptionalTensor dense(const OptionalTensor& t) {
  return given(t) ? OptionalTensor(t->contiguous()) : std::nullopt;
}

inline at::Tensor empty_acc(at::IntArrayRef sizes, const at::Tensor& x) {
  return at::empty(sizes, x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat));
}

}  // namespace resnet_fused
