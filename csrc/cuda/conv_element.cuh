// Pieces of 16 bytes of a tensor's elements, and their conversion from and to float32.
#pragma once

#include "element.cuh"

namespace resnet_fused::cuda {

constexpr int kPieceBytes = kAccessBytes;
template <typename T>
constexpr int kPiece = kWidest<T>;  // elements

__device__ __forceinline__ float2 to_float2(__half2 v) { return __half22float2(v); }
__device__ __forceinline__ float2 to_float2(__nv_bfloat162 v) { return __bfloat1622float2(v); }

// To nearest; Two<T>::from converts two with one instruction.
template <typename T>
struct Two;
template <>
struct Two<__half> {
  using Type = __half2;
  static __device__ __forceinline__ Type from(float a, float b) { return __floats2half2_rn(a, b); }
};
template <>
struct Two<__nv_bfloat16> {
  using Type = __nv_bfloat162;
  static __device__ __forceinline__ Type from(float a, float b) { return __floats2bfloat162_rn(a, b); }
};

template <typename T>
__device__ __forceinline__ float rounded(float v) {
  return to_acc(from_acc<T>(v));
}

// The elements of a piece; `piece` is a multiple of 16.
template <typename T>
__device__ __forceinline__ void read_piece(float (&v)[kPiece<T>], const void* piece) {
  uint4 bits = *static_cast<const uint4*>(piece);
  if constexpr (sizeof(T) == 4) {
    const float* elements = reinterpret_cast<const float*>(&bits);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      v[e] = elements[e];
    }
  } else {
    const typename Two<T>::Type* pairs = reinterpret_cast<const typename Two<T>::Type*>(&bits);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float2 pair = to_float2(pairs[e]);
      v[2 * e] = pair.x;
      v[2 * e + 1] = pair.y;
    }
  }
}

template <typename T>
__device__ __forceinline__ void write_piece(void* piece, const float (&v)[kPiece<T>]) {
  uint4 bits;
  if constexpr (sizeof(T) == 4) {
    bits = make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3]));
  } else {
    typename Two<T>::Type* pairs = reinterpret_cast<typename Two<T>::Type*>(&bits);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      pairs[e] = Two<T>::from(v[2 * e], v[2 * e + 1]);
    }
  }
  *static_cast<uint4*>(piece) = bits;
}

// `count` elements, zeros after them; with `vector` a whole piece in one access.
template <typename T>
__device__ __forceinline__ void load_elements(float (&v)[kPiece<T>], const T* from, int count, bool vector) {
  if (vector) {
    read_piece<T>(v, from);
    return;
  }
#pragma unroll
  for (int e = 0; e < kPiece<T>; ++e) {
    v[e] = e < count ? to_acc(from[e]) : 0.0f;
  }
}

template <typename T>
__device__ __forceinline__ void store_elements(T* to, const float (&v)[kPiece<T>], int count, bool vector) {
  if (vector) {
    write_piece<T>(to, v);
    return;
  }
#pragma unroll
  for (int e = 0; e < kPiece<T>; ++e) {
    if (e < count) {
      to[e] = from_acc<T>(v[e]);
    }
  }
}

// The same of float32 vectors over the channels.
template <int COUNT>
__device__ __forceinline__ void load_channels(float (&v)[COUNT], const float* from, int count) {
#pragma unroll
  for (int e = 0; e < COUNT; ++e) {
    v[e] = e < count ? __ldg(from + e) : 0.0f;
  }
}

template <int COUNT>
__device__ __forceinline__ void store_channels(float* to, const float (&v)[COUNT], int count) {
#pragma unroll
  for (int e = 0; e < COUNT; ++e) {
    if (e < count) {
      to[e] = v[e];
    }
  }
}

}  // namespace resnet_fused::cuda
