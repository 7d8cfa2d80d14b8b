// From run-time properties of tensors to the template arguments of a kernel that walks by sweep.cuh.
#pragma once

#include <initializer_list>

#include "element.cuh"
#include "launch.cuh"
#include "sweep.h"

namespace resnet_fused::cuda {

template <typename T, int kVector, bool kLast>
struct Variant {
  using Type = T;
  static constexpr int kN = kVector;
  static constexpr bool kChannelsLast = kLast;
};

// Elements of an access: the widest if every row begins on its boundary, else one. Null pointers are not accessed.
inline int vector_of(DType dtype, int64_t row_length, std::initializer_list<const void*> pointers) {
  int vector = kAccessBytes / element_bytes(dtype);
  bool aligned = row_length % vector == 0;
  for (const void* pointer : pointers) {
    aligned &= reinterpret_cast<uintptr_t>(pointer) % kAccessBytes == 0;
  }
  return aligned ? vector : 1;
}

inline int vector_of(DType dtype, const Shape& shape, std::initializer_list<const void*> pointers) {
  return vector_of(dtype, shape.channels_last ? shape.channels : shape.pixels, pointers);
}

// Calls f(a value of the element type).
template <typename Function>
void with_type(DType dtype, Function f) {
  switch (dtype) {
    case DType::kFloat32:
      return f(float{});
    case DType::kFloat64:
      return f(double{});
    case DType::kBFloat16:
      return f(__nv_bfloat16{});
    case DType::kFloat16:
      return f(__half{});
  }
}

// Calls f(Variant<element type, vector, channels last>).
template <typename Function>
void with_variant(DType dtype, int vector, bool channels_last, Function f) {
  with_type(dtype, [&](auto element) {
    using T = decltype(element);
    constexpr int kWide = kAccessBytes / sizeof(T);
    if (vector == 1) {
      channels_last ? f(Variant<T, 1, true>{}) : f(Variant<T, 1, false>{});
    } else {
      channels_last ? f(Variant<T, kWide, true>{}) : f(Variant<T, kWide, false>{});
    }
  });
}

// Of a kernel that walks by sweep.cuh.
template <typename Params>
void launch_sweep(const char* name, void (*kernel)(Params), int64_t blocks, const Params& params, cudaStream_t stream) {
  launch(kernel, name, blocks, kThreads, 0, stream, params);
}

}  // namespace resnet_fused::cuda
