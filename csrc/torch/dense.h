// Tensors as the kernels want them: dense in one of two memory formats, with raw pointers.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <optional>
#include <vector>

#include "../common/types.h"

namespace resnet_fused {

using OptionalTensor = std::optional<at::Tensor>;

inline bool given(const OptionalTensor& t) {
  return t.has_value() && t->defined();
}

// Whether there is memory behind its elements, which resizing its storage takes away.
inline bool is_allocated(const at::Tensor& t) {
  return t.has_storage() && t.storage().data() != nullptr;
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

// A mask of x, uint8: eight channels a byte, [N, C/8, H, W] in channels last, or eight pixels, [N, C, H*W/8].
inline std::vector<int64_t> mask_sizes(const at::Tensor& x, bool of_channels) {
  int64_t pixels = x.size(2) * x.size(3);
  return of_channels ? std::vector<int64_t>{x.size(0), x.size(1) / kMaskBits, x.size(2), x.size(3)}
                     : std::vector<int64_t>{x.size(0), x.size(1), pixels / kMaskBits};
}

// Uninitialised, for x in the given format; [0] where it has none or none is wanted.
inline at::Tensor empty_mask(const at::Tensor& x, at::MemoryFormat format, bool wanted) {
  Shape shape = shape_of(x, format);
  auto options = x.options().dtype(at::kByte);
  if (!wanted || !has_mask(shape)) {
    return at::empty({0}, options);
  }
  auto order = shape.channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  return at::empty(mask_sizes(x, shape.channels_last), options.memory_format(order));
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

// A mask whose bits are in the order of x in the given format, dense; one of another order counts as not given.
inline OptionalTensor dense_mask(const OptionalTensor& mask, const at::Tensor& x, at::MemoryFormat format) {
  bool of_channels = shape_of(x, format).channels_last;
  if (!given(mask) || mask->dim() != (of_channels ? 4 : 3)) {
    return std::nullopt;
  }
  return mask->contiguous(of_channels ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
}

inline at::Tensor empty_acc(at::IntArrayRef sizes, const at::Tensor& x) {
  return at::empty(sizes, x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat));
}

}  // namespace resnet_fused
