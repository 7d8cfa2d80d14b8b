// Elements of a tensor: one access of memory brings N of them, arithmetic is in their accumulation type.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace resnet_fused::cuda {

constexpr int kAccessBytes = 16;  // the widest access of global memory

template <typename T>
constexpr int kWidest = kAccessBytes / sizeof(T);  // elements of it

template <typename T>
struct AccOf {
  using Type = float;
};
template <>
struct AccOf<double> {
  using Type = double;
};
template <typename T>
using Acc = typename AccOf<T>::Type;

__device__ inline float to_acc(float x) {
  return x;
}
__device__ inline double to_acc(double x) {
  return x;
}
__device__ inline float to_acc(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ inline float to_acc(__half x) {
  return __half2float(x);
}

// Rounded to nearest even.
template <typename T>
__device__ T from_acc(Acc<T> x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 from_acc<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline __half from_acc<__half>(float x) {
  return __float2half_rn(x);
}

template <int kBytes>
struct WordOf;
template <>
struct WordOf<1> {
  using Type = uint8_t;
};
template <>
struct WordOf<2> {
  using Type = uint16_t;
};
template <>
struct WordOf<4> {
  using Type = uint32_t;
};
template <>
struct WordOf<8> {
  using Type = uint2;
};
template <>
struct WordOf<16> {
  using Type = uint4;
};

// N elements as they lie in memory, in one access.
template <typename T, int N>
struct Packed {
  typename WordOf<sizeof(T) * N>::Type word;

  __device__ T operator[](int i) const {
    T elements[N];
    memcpy(elements, &word, sizeof(word));
    return elements[i];
  }
};

// Both by the instruction for just this width: the compiler takes plain accesses of structs apart where it likes.
template <int N, typename T>
__device__ Packed<T, N> load(const T* p) {
  Packed<T, N> packed;
  packed.word = __ldca(reinterpret_cast<const decltype(packed.word)*>(p));
  return packed;
}

template <typename T, int N>
__device__ Packed<T, N> pack(const Acc<T> (&values)[N]) {
  T elements[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    elements[i] = from_acc<T>(values[i]);
  }
  Packed<T, N> packed;
  memcpy(&packed.word, elements, sizeof(packed.word));
  return packed;
}

template <typename T, int N>
__device__ void store(T* p, const Packed<T, N>& packed) {
  __stwb(reinterpret_cast<decltype(Packed<T, N>::word)*>(p), packed.word);
}

template <typename T, int N>
__device__ void store(T* p, const Acc<T> (&values)[N]) {
  store(p, pack<T>(values));
}

__device__ inline float multiply_add(float a, float b, float c) {
  return __fmaf_rn(a, b, c);
}
__device__ inline double multiply_add(double a, double b, double c) {
  return __fma_rn(a, b, c);
}

// x where not (argument <= 0), so that NaN passes as in eager's ReLU and its gradient.
template <typename A>
__device__ A zero_up_to_zero(A argument, A x) {
  return argument <= A(0) ? A(0) : x;
}

}  // namespace resnet_fused::cuda
