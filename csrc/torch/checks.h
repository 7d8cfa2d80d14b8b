// Argument checks, in the words eager PyTorch uses where it has the case.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "../common/types.h"
#include "dense.h"

namespace resnet_fused {

inline at::ScalarType acc_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

inline DType dtype_of(at::ScalarType type, const char* op) {
  switch (type) {
    case at::kFloat:
      return DType::kFloat32;
    case at::kDouble:
      return DType::kFloat64;
    case at::kBFloat16:
      return DType::kBFloat16;
    case at::kHalf:
      return DType::kFloat16;
    default:
      TORCH_CHECK_NOT_IMPLEMENTED(false, "\"", op, "\" not implemented for '", c10::toString(type), "'");
  }
}

inline void check_activation(const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 4, "expected 4D input (got ", x.dim(), "D input)");
}

inline void check_device(const at::Tensor& t, const at::Tensor& like, const char* name) {
  TORCH_CHECK(t.device() == like.device(), "Expected all tensors to be on the same device, but ", name, " is on ",
              t.device(), ", different from other tensors on ", like.device());
}

// A tensor that goes with `like` elementwise.
inline void check_same(const at::Tensor& t, const at::Tensor& like, const char* name) {
  check_device(t, like, name);
  TORCH_CHECK(t.sizes() == like.sizes(), name, " should have size ", like.sizes(), ", but got ", t.sizes());
  TORCH_CHECK(t.scalar_type() == like.scalar_type(), "expected ", name, " to have dtype ", like.scalar_type(),
              ", but got ", t.scalar_type());
}

// A per-channel array [rows, C] in the accumulation type.
inline void check_rows(const at::Tensor& t, int64_t rows, const at::Tensor& x, const char* name) {
  check_device(t, x, name);
  TORCH_CHECK(t.dim() == 2 && t.size(0) == rows && t.size(1) == x.size(1), name, " should have size [", rows, ", ",
              x.size(1), "], but got ", t.sizes());
  TORCH_CHECK(t.scalar_type() == acc_type(x.scalar_type()), "expected ", name, " to have dtype ",
              acc_type(x.scalar_type()), ", but got ", t.scalar_type());
}

// A mask of `like` (dense.h), of either order; or [0], which is none.
inline void check_mask(const at::Tensor& t, const at::Tensor& like, const char* name) {
  check_device(t, like, name);
  TORCH_CHECK(t.scalar_type() == at::kByte, "expected ", name, " to have dtype Byte, but got ", t.scalar_type());
  bool of_channels = t.dim() == 4;
  int64_t bits = of_channels ? like.size(1) : like.size(2) * like.size(3);
  bool none = t.dim() == 1 && t.numel() == 0;
  TORCH_CHECK(none || (bits % kMaskBits == 0 && t.sizes() == mask_sizes(like, of_channels)), name,
              " should have a bit for each element of ", like.sizes(), ", but has size ", t.sizes());
}

// A per-channel vector that goes with an array [..., C].
inline void check_channels(const at::Tensor& t, const at::Tensor& rows, const char* name) {
  check_device(t, rows, name);
  int64_t channels = rows.size(-1);
  TORCH_CHECK(t.dim() == 1 && t.size(0) == channels, name, " should contain ", channels, " elements not ", t.numel());
}

}  // namespace resnet_fused
