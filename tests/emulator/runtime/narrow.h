// fp16 and bf16, as the 16 bits that registers hold. Results are rounded once, to nearest even; NaN is 0x7fff.
#pragma once

#include "arithmetic.h"
#include "types.h"

namespace emulator {

// a + b to double's 53 bits, the last of which is 1 where anything was cut off: rounded again, to at most 51 bits, it
// gives what rounding the sum itself would.
inline double add_to_odd(double a, double b) {
  const double sum = a + b;
  const double b_part = sum - a;
  const double error = (a - (sum - b_part)) + (b - b_part);
  const u64 bits = bit_cast<u64>(sum);
  if (error == 0 || is_nan(error) || (bits & 1)) {
    return sum;
  }
  return bit_cast<double>((error > 0) == (sum > 0) ? bits + 1 : bits - 1);
}

// Float's 24 bits of a double, likewise.
inline float to_float_odd(double a) {
  float f = static_cast<float>(a);
  if (f == a || is_nan(a)) {
    return f;
  }
  u32 bits = bit_cast<u32>(f);
  if (absolute(static_cast<double>(f)) > absolute(a)) {
    bits -= 1;
  }
  return bit_cast<float>(bits | 1);
}

struct F16 {
  // The exponent's bias differs by 112: scaling does subnormal numbers as well.
  static float to_float(u16 a) {
    const u32 magnitude = static_cast<u32>(a & 0x7fff) << 13, sign = static_cast<u32>(a & 0x8000) << 16;
    const u32 finite = bit_cast<u32>(bit_cast<float>(magnitude) * 0x1p112f);
    return bit_cast<float>(sign | ((a & 0x7c00) == 0x7c00 ? magnitude | 0x7f800000u : finite));
  }
  static u16 from(float a) {
    return is_nan(a) ? 0x7fff : bit_cast<u16>(static_cast<_Float16>(a));
  }
  static u16 from(double a) {
    return from(to_float_odd(a));
  }
};

struct BF16 {
  static float to_float(u16 a) {
    return bit_cast<float>(static_cast<u32>(a) << 16);
  }
  static u16 from(float a) {
    const u32 bits = bit_cast<u32>(a);
    return is_nan(a) ? 0x7fff : static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
  static u16 from(double a) {
    return from(to_float_odd(a));
  }
};

template <typename Format>
inline u16 narrow_add(u16 a, u16 b) {
  return Format::from(add_to_odd(Format::to_float(a), Format::to_float(b)));
}
template <typename Format>
inline u16 narrow_subtract(u16 a, u16 b) {
  return Format::from(add_to_odd(Format::to_float(a), -Format::to_float(b)));
}
template <typename Format>
inline u16 narrow_multiply(u16 a, u16 b) {
  return Format::from(static_cast<double>(Format::to_float(a)) * Format::to_float(b));
}
template <typename Format>
inline u16 narrow_fma(u16 a, u16 b, u16 c) {
  return Format::from(add_to_odd(static_cast<double>(Format::to_float(a)) * Format::to_float(b), Format::to_float(c)));
}

template <typename Format>
inline u16 narrow_min(u16 a, u16 b) {
  return Format::from(minimum(Format::to_float(a), Format::to_float(b)));
}
template <typename Format>
inline u16 narrow_max(u16 a, u16 b) {
  return Format::from(maximum(Format::to_float(a), Format::to_float(b)));
}
template <typename Format>
inline u16 narrow_min_nan(u16 a, u16 b) {
  return Format::from(minimum_nan(Format::to_float(a), Format::to_float(b)));
}
template <typename Format>
inline u16 narrow_max_nan(u16 a, u16 b) {
  return Format::from(maximum_nan(Format::to_float(a), Format::to_float(b)));
}

template <typename Format>
inline u16 narrow_negate(u16 a) {
  return is_nan(Format::to_float(a)) ? 0x7fff : a ^ 0x8000;
}
template <typename Format>
inline u16 narrow_absolute(u16 a) {
  return is_nan(Format::to_float(a)) ? 0x7fff : a & 0x7fff;
}
// .relu: NaN stays, canonical; anything negative is +0.
template <typename Format>
inline u16 narrow_relu(u16 a) {
  return is_nan(Format::to_float(a)) ? 0x7fff : a & 0x8000 ? 0 : a;
}
template <typename Format>
inline u16 narrow_saturate(u16 a) {
  return Format::from(saturate(Format::to_float(a)));
}
template <typename Format>
inline u16 narrow_exp2(u16 a) {
  return Format::from(exp2_exact(Format::to_float(a)));
}
template <typename Format>
inline u16 narrow_tanh(u16 a) {
  return Format::from(tanh_exact(Format::to_float(a)));
}

// f16x2 and bf16x2: the same on each half.
template <u16 (*function)(u16)>
inline u32 packed(u32 a) {
  return function(static_cast<u16>(a)) | static_cast<u32>(function(static_cast<u16>(a >> 16))) << 16;
}
template <u16 (*function)(u16, u16)>
inline u32 packed(u32 a, u32 b) {
  const u32 high = function(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16));
  return function(static_cast<u16>(a), static_cast<u16>(b)) | high << 16;
}
template <u16 (*function)(u16, u16, u16)>
inline u32 packed(u32 a, u32 b, u32 c) {
  const u32 high = function(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16), static_cast<u16>(c >> 16));
  return function(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c)) | high << 16;
}
inline u32 pack(u16 low, u16 high) {
  return low | static_cast<u32>(high) << 16;
}

}  // namespace emulator
