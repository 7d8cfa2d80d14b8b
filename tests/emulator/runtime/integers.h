// Integer instructions that C++ has no operator for, or one that is undefined for some operands.
#pragma once

#include "types.h"

namespace emulator {

template <typename T>
inline constexpr u32 kBits = sizeof(T) * 8;

inline u64 multiply_high(u64 a, u64 b) {
  return static_cast<u64>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline s64 multiply_high(s64 a, s64 b) {
  return static_cast<s64>(static_cast<__int128>(a) * b >> 64);
}
inline u32 multiply_high(u32 a, u32 b) {
  return static_cast<u32>(static_cast<u64>(a) * b >> 32);
}
inline s32 multiply_high(s32 a, s32 b) {
  return static_cast<s32>(static_cast<s64>(a) * b >> 32);
}
inline u16 multiply_high(u16 a, u16 b) {
  return static_cast<u16>(static_cast<u32>(a) * b >> 16);
}
inline s16 multiply_high(s16 a, s16 b) {
  return static_cast<s16>(static_cast<s32>(a) * b >> 16);
}

// Division by zero is unspecified; -2^31 / -1 wraps.
template <typename T>
inline T divide(T a, T b) {
  if (b == 0) {
    return static_cast<T>(~T(0));
  }
  if constexpr (T(-1) < T(0)) {
    if (b == T(-1)) {
      return static_cast<T>(u64(0) - static_cast<u64>(a));
    }
  }
  return static_cast<T>(a / b);
}
template <typename T>
inline T remainder(T a, T b) {
  if (b == 0) {
    return a;
  }
  if constexpr (T(-1) < T(0)) {
    if (b == T(-1)) {
      return 0;
    }
  }
  return static_cast<T>(a % b);
}

// Shifts by at least the width leave zeros, or copies of the sign.
template <typename T>
inline T shift_left(T a, u32 n) {
  return n >= kBits<T> ? T(0) : static_cast<T>(a << n);
}
template <typename T>
inline T shift_right(T a, u32 n) {
  return static_cast<T>(a >> (n >= kBits<T> ? kBits<T> - 1 : n) >> (n >= kBits<T> ? 1 : 0));
}

// shf: bits of the 64-bit number high:low.
inline u32 funnel_left(u32 low, u32 high, u32 n) {
  return static_cast<u32>((static_cast<u64>(high) << 32 | low) << n >> 32);
}
inline u32 funnel_right(u32 low, u32 high, u32 n) {
  return static_cast<u32>((static_cast<u64>(high) << 32 | low) >> n);
}
inline u32 at_most_32(u32 n) {
  return n < 32 ? n : 32;
}

template <typename T>
inline T extract_field(T a, u32 position, u32 length) {
  constexpr bool is_signed = T(-1) < T(0);
  position &= 0xff;
  length &= 0xff;
  const u32 msb = kBits<T> - 1;
  const u64 bits = static_cast<u64>(a);
  const u32 last = position + length - 1 < msb ? position + length - 1 : msb;
  const bool sign = is_signed && length != 0 && (bits >> last & 1);
  u64 result = sign ? ~u64(0) : 0;
  for (u32 i = 0; i < kBits<T> && i < length && position + i <= msb; ++i) {
    result = (result & ~(u64(1) << i)) | (bits >> (position + i) & 1) << i;
  }
  return static_cast<T>(result);
}
template <typename T>
inline T insert_field(T field, T into, u32 position, u32 length) {
  position &= 0xff;
  length &= 0xff;
  for (u32 i = 0; i < length && position + i < kBits<T>; ++i) {
    const T bit = static_cast<T>(T(1) << (position + i));
    into = static_cast<T>((into & ~bit) | (field >> i & 1 ? bit : 0));
  }
  return into;
}

inline u32 leading_zeros(u32 a) {
  return a ? __builtin_clz(a) : 32;
}
inline u32 leading_zeros(u64 a) {
  return a ? __builtin_clzll(a) : 64;
}
inline u32 ones(u32 a) {
  return __builtin_popcount(a);
}
inline u32 ones(u64 a) {
  return __builtin_popcountll(a);
}
template <typename T>
inline T reverse_bits(T a) {
  T result = 0;
  for (u32 i = 0; i < kBits<T>; ++i) {
    result = static_cast<T>(result << 1 | (a >> i & 1));
  }
  return result;
}
// Position of the highest bit that differs from the sign, or ~0. shift: how far it is from the top instead.
template <typename T>
inline u32 find_leading(T a, bool shift) {
  const T bits = a < T(0) ? static_cast<T>(~a) : a;  // not negative, so nothing is extended
  if (bits == 0) {
    return ~u32(0);
  }
  const u32 position = 63 - __builtin_clzll(static_cast<u64>(bits));
  return shift ? kBits<T> - 1 - position : position;
}

// Bytes of b:a, each chosen by four bits; their highest: the byte's sign, eight times.
inline u32 permute_bytes(u32 a, u32 b, u32 selector) {
  const u64 bytes = static_cast<u64>(b) << 32 | a;
  u32 result = 0;
  for (u32 i = 0; i < 4; ++i) {
    const u32 choice = selector >> (4 * i) & 0xf;
    u32 byte = static_cast<u32>(bytes >> (8 * (choice & 7))) & 0xff;
    if (choice & 8) {
      byte = byte & 0x80 ? 0xff : 0;
    }
    result |= byte << (8 * i);
  }
  return result;
}

// Bit i of the table is the result where the bits of a, b, c are those of i.
template <u32 table>
inline u32 logic3(u32 a, u32 b, u32 c) {
  u32 result = 0;
  for (u32 i = 0; i < 8; ++i) {
    if (table >> i & 1) {
      result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    }
  }
  return result;
}

template <typename A, typename B>
inline u32 dot4(u32 a, u32 b, u32 c) {
  for (u32 i = 0; i < 4; ++i) {
    c += static_cast<u32>(static_cast<s32>(static_cast<A>(a >> 8 * i)) * static_cast<s32>(static_cast<B>(b >> 8 * i)));
  }
  return c;
}

template <typename T>
inline T absolute_difference(T a, T b) {
  return static_cast<T>(a < b ? static_cast<u64>(b) - static_cast<u64>(a) : static_cast<u64>(a) - static_cast<u64>(b));
}

inline u32 add_saturated(s32 a, s64 b) {
  const s64 sum = a + b;
  return static_cast<u32>(static_cast<s32>(sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum));
}

}  // namespace emulator
