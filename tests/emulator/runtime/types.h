// Short names for the types of PTX, and reinterpreting bits.
#pragma once

#include <stdint.h>

namespace emulator {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;

template <typename To, typename From>
inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

// Whatever type the bytes have been written as. p must be aligned. Always inlined: sanitizers see kernels' only.
template <typename T>
[[gnu::always_inline]] inline T peek(const u8* p) {
  typedef T __attribute__((may_alias)) Aliased;
  return *reinterpret_cast<const Aliased*>(p);
}
template <typename T>
[[gnu::always_inline]] inline void poke(u8* p, T value) {
  typedef T __attribute__((may_alias)) Aliased;
  *reinterpret_cast<Aliased*>(p) = value;
}

}  // namespace emulator
