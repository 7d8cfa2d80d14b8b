// What the launchers share: from run-time properties to a kernel's template arguments, and the launch itself.
#pragma once

#include <cuda_runtime_api.h>

#include <initializer_list>
#include <stdexcept>
#include <string>

#include "element.cuh"
#include "sweep.h"

namespace resnet_fused::cuda {

template <typename T, int kVector, bool kLast>
struct Variant {
  using Type = T;
  static constexpr int kN = kVector;
  static constexpr bool kChannelsLast = kLast;
};

inline int element_bytes(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

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

// Throws std::runtime_error if the launch fails; a kernel's own faults appear later, as with every CUDA launch.
template <typename Params>
void launch(void (*kernel)(Params), int64_t blocks, const Params& params, cudaStream_t stream) {
  constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
  if (blocks > kMostBlocks) {
    throw std::runtime_error("a grid of " + std::to_string(blocks) + " blocks is larger than CUDA allows");
  }
  if (blocks == 0) {
    return;
  }
  kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(params);
  cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string("CUDA kernel launch failed: ") + cudaGetErrorString(error));
  }
}

}  // namespace resnet_fused::cuda
