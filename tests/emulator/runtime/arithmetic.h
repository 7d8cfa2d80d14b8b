// Floating-point instructions. Compiled with -ffp-contract=off, so that + and * are rounded to nearest each.
#pragma once

#include "types.h"

namespace emulator {

enum class Round { kNearest, kZero, kDown, kUp };

// Rounded in a given direction. Slow: they switch the processor's mode.
float add_rounded(Round round, float a, float b);
double add_rounded(Round round, double a, double b);
float multiply_rounded(Round round, float a, float b);
double multiply_rounded(Round round, double a, double b);
float fma_rounded(Round round, float a, float b, float c);
double fma_rounded(Round round, double a, double b, double c);
float divide_rounded(Round round, float a, float b);
double divide_rounded(Round round, double a, double b);
float sqrt_rounded(Round round, float a);
double sqrt_rounded(Round round, double a);

inline float fma(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
inline double fma(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}
inline float sqrt(float a) {
  return __builtin_sqrtf(a);
}
inline double sqrt(double a) {
  return __builtin_sqrt(a);
}
inline float absolute(float a) {
  return __builtin_fabsf(a);
}
inline double absolute(double a) {
  return __builtin_fabs(a);
}

// Approximations of the hardware, computed in double and rounded once.
inline float reciprocal_sqrt(float a) {
  return static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(a)));
}
inline double reciprocal_sqrt(double a) {
  return 1.0 / __builtin_sqrt(a);
}
// rcp.approx.ftz.f64 is of the upper 32 bits only, with zeros for the lower; a subnormal number counts as zero.
inline double reciprocal_upper(double a) {
  constexpr u64 upper = ~u64(0) << 32, exponent = u64(0x7ff) << 52, sign = u64(1) << 63;
  const auto cut = [=](u64 bits) { return bit_cast<double>(bits & exponent ? bits & upper : bits & sign); };
  return cut(bit_cast<u64>(1.0 / cut(bit_cast<u64>(a))));
}
float exp2_exact(float a);
float log2_exact(float a);
float sin_exact(float a);
float cos_exact(float a);
float tanh_exact(float a);

// .ftz: subnormal numbers count as zeros of the same sign.
inline float flush(float a) {
  const bool subnormal = (bit_cast<u32>(a) & 0x7f800000u) == 0;
  return subnormal ? bit_cast<float>(bit_cast<u32>(a) & 0x80000000u) : a;
}

// .sat: into [0, 1], NaN to 0.
template <typename T>
inline T saturate(T a) {
  return a > T(0) ? (a < T(1) ? a : T(1)) : T(0);
}

template <typename T>
inline bool is_nan(T a) {
  return a != a;
}

// The operand that is a number, if one is; -0 is less than +0.
template <typename T>
inline T minimum(T a, T b) {
  if (is_nan(a) || is_nan(b)) {
    return is_nan(a) ? b : a;
  }
  return a < b || (a == b && __builtin_signbit(a)) ? a : b;
}
template <typename T>
inline T maximum(T a, T b) {
  if (is_nan(a) || is_nan(b)) {
    return is_nan(a) ? b : a;
  }
  return a > b || (a == b && !__builtin_signbit(a)) ? a : b;
}
// .NaN: a NaN if one operand is.
template <typename T>
inline T minimum_nan(T a, T b) {
  return is_nan(a) || is_nan(b) ? static_cast<T>(__builtin_nanf("")) : minimum(a, b);
}
template <typename T>
inline T maximum_nan(T a, T b) {
  return is_nan(a) || is_nan(b) ? static_cast<T>(__builtin_nanf("")) : maximum(a, b);
}

// Comparisons that are true, or false, where an operand is NaN.
template <typename T>
inline bool less_or_greater(T a, T b) {
  return a < b || a > b;
}
template <typename T>
inline bool unordered(T a, T b) {
  return is_nan(a) || is_nan(b);
}

template <typename T>
inline T copy_sign(T sign, T magnitude) {
  return __builtin_copysign(magnitude, sign);
}
template <>
inline float copy_sign(float sign, float magnitude) {
  return __builtin_copysignf(magnitude, sign);
}

}  // namespace emulator
