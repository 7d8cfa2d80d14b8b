// cvt: between types, in a given direction of rounding.
#pragma once

#include "arithmetic.h"
#include "narrow.h"
#include "types.h"

namespace emulator {

// To a whole number. Nearest is to even.
inline float round_to_integer(Round round, float a) {
  switch (round) {
    case Round::kNearest:
      return __builtin_rintf(a);
    case Round::kZero:
      return __builtin_truncf(a);
    case Round::kDown:
      return __builtin_floorf(a);
    case Round::kUp:
      return __builtin_ceilf(a);
  }
  __builtin_unreachable();
}
inline double round_to_integer(Round round, double a) {
  switch (round) {
    case Round::kNearest:
      return __builtin_rint(a);
    case Round::kZero:
      return __builtin_trunc(a);
    case Round::kDown:
      return __builtin_floor(a);
    case Round::kUp:
      return __builtin_ceil(a);
  }
  __builtin_unreachable();
}

// Clamped to the range of Integer. NaN is 0, but 2^63 where either type has 64 bits.
template <typename Integer, typename Float>
inline Integer to_integer(Round round, Float a) {
  constexpr bool is_signed = Integer(-1) < Integer(0);
  constexpr u32 bits = sizeof(Integer) * 8;
  if (is_nan(a)) {
    return sizeof(Float) == 8 || bits == 64 ? static_cast<Integer>(u64(1) << (bits - 1)) : 0;
  }
  const double whole = round_to_integer(round, static_cast<double>(a));
  const double limit = (is_signed ? 1.0 : 2.0) * static_cast<double>(u64(1) << (bits - 1));
  constexpr Integer highest = static_cast<Integer>(~u64(0) >> (64 - bits + is_signed));
  if (whole >= limit) {
    return highest;
  }
  if (whole < (is_signed ? -limit : 0.0)) {
    return static_cast<Integer>(~highest);
  }
  return static_cast<Integer>(whole);
}

// .sat of an integer: clamped to the range of To.
template <typename To, typename From>
inline To clamp_integer(From a) {
  const __int128 value = a;
  constexpr __int128 highest = static_cast<To>(~u64(0) >> (64 - sizeof(To) * 8 + (To(-1) < To(0))));
  constexpr __int128 lowest = To(-1) < To(0) ? -highest - 1 : 0;
  return static_cast<To>(value > highest ? highest : value < lowest ? lowest : value);
}

float float_from(Round round, double a);
float float_from(Round round, s64 a);
float float_from(Round round, u64 a);
double double_from(Round round, s64 a);
double double_from(Round round, u64 a);

// fp16 and bf16 in a direction other than to nearest.
u16 f16_from(Round round, double a);
u16 bf16_from(Round round, double a);

// cvt.rna.tf32.f32: ten bits of mantissa, ties away from zero.
inline u32 tf32_from(float a) {
  const u32 bits = bit_cast<u32>(a);
  return is_nan(a) ? 0x7fffffff : (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000) & ~u32(0x1fff);
}

}  // namespace emulator
