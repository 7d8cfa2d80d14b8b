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

// Float32, 16 bytes at a time.
template <int COUNT>
__device__ __forceinline__ void read_floats(float (&v)[COUNT], const float* from) {
#pragma unroll
  for (int e = 0; e < COUNT; e += 4) {
    float4 four = *reinterpret_cast<const float4*>(from + e);
    v[e] = four.x, v[e + 1] = four.y, v[e + 2] = four.z, v[e + 3] = four.w;
  }
}

template <int COUNT>
__device__ __forceinline__ void write_floats(float* to, const float (&v)[COUNT]) {
#pragma unroll
  for (int e = 0; e < COUNT; e += 4) {
    *reinterpret_cast<float4*>(to + e) = make_float4(v[e], v[e + 1], v[e + 2], v[e + 3]);
  }
}

// The elements of a piece; `piece` is a multiple of 16.
template <typename T>
__device__ __forceinline__ void read_piece(float (&v)[kPiece<T>], const void* piece) {
  if constexpr (sizeof(T) == 4) {
    read_floats(v, static_cast<const float*>(piece));
  } else {
    uint4 bits = *static_cast<const uint4*>(piece);
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
  if constexpr (sizeof(T) == 4) {
    write_floats(static_cast<float*>(piece), v);
  } else {
    uint4 bits;
    typename Two<T>::Type* pairs = reinterpret_cast<typename Two<T>::Type*>(&bits);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      pairs[e] = Two<T>::from(v[2 * e], v[2 * e + 1]);
    }
    *static_cast<uint4*>(piece) = bits;
  }
}

// Four neighbouring elements of a piece.
template <typename T>
__device__ __forceinline__ void read_four(float (&v)[4], const void* quarter) {
  if constexpr (sizeof(T) == 4) {
    read_floats(v, static_cast<const float*>(quarter));
  } else {
    uint2 bits = *static_cast<const uint2*>(quarter);
    const typename Two<T>::Type* pairs = reinterpret_cast<const typename Two<T>::Type*>(&bits);
    float2 first = to_float2(pairs[0]), second = to_float2(pairs[1]);
    v[0] = first.x, v[1] = first.y, v[2] = second.x, v[3] = second.y;
  }
}

template <typename T>
__device__ __forceinline__ void write_four(void* quarter, const float (&v)[4]) {
  if constexpr (sizeof(T) == 4) {
    write_floats(static_cast<float*>(quarter), v);
  } else {
    uint2 bits;
    typename Two<T>::Type* pairs = reinterpret_cast<typename Two<T>::Type*>(&bits);
    pairs[0] = Two<T>::from(v[0], v[1]);
    pairs[1] = Two<T>::from(v[2], v[3]);
    *static_cast<uint2*>(quarter) = bits;
  }
}

// One element of global memory.
template <typename T>
__device__ __forceinline__ T load_element(const T* from) {
  return load<1>(from)[0];
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

// store_elements, which leaves in v what was stored.
template <typename T>
__device__ __forceinline__ void store_rounded(T* to, float (&v)[kPiece<T>], int count, bool vector) {
  uint4 bits;
  write_piece<T>(&bits, v);
  read_piece<T>(v, &bits);
  if (vector) {
    *reinterpret_cast<uint4*>(to) = bits;
  } else {
    store_elements(to, v, count, false);
  }
}

// As load_elements and store_elements, of float32 vectors over the channels.
template <int COUNT>
__device__ __forceinline__ void load_channels(float (&v)[COUNT], const float* from, int count) {
#pragma unroll
  for (int e = 0; e < COUNT; ++e) {
    v[e] = e < count ? __ldg(from + e) : 0.0f;
  }
}

template <int COUNT>
__device__ __forceinline__ void store_channels(float* to, const float (&v)[COUNT], int count, bool vector = false) {
  __builtin_assume(__isGlobal(to));  // which the compiler does not always find out
  if (vector) {
    write_floats(to, v);
    return;
  }
#pragma unroll
  for (int e = 0; e < COUNT; ++e) {
    if (e < count) {
      to[e] = v[e];
    }
  }
}

}  // namespace resnet_fused::cuda
