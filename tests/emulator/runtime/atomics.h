// Atomic operations, and accesses that other threads may race with. ThreadSanitizer knows them as such.
#pragma once

#include "narrow.h"
#include "types.h"

namespace emulator {

template <u32 bytes>
struct BitsOf;
template <>
struct BitsOf<1> {
  using Type = u8;
};
template <>
struct BitsOf<2> {
  using Type = u16;
};
template <>
struct BitsOf<4> {
  using Type = u32;
};
template <>
struct BitsOf<8> {
  using Type = u64;
};
template <typename T>
using Bits = typename BitsOf<sizeof(T)>::Type;

template <typename T>
inline T peek_atomic(const u8* p) {
  return bit_cast<T>(__atomic_load_n(reinterpret_cast<const Bits<T>*>(p), __ATOMIC_RELAXED));
}
template <typename T>
inline void poke_atomic(u8* p, T value) {
  __atomic_store_n(reinterpret_cast<Bits<T>*>(p), bit_cast<Bits<T>>(value), __ATOMIC_RELAXED);
}

// Replaces the number with `change` of it and returns what it was.
template <typename T, typename F>
inline T atomic_change(u8* p, const F& change) {
  Bits<T> before = __atomic_load_n(reinterpret_cast<Bits<T>*>(p), __ATOMIC_RELAXED), after;
  do {
    after = bit_cast<Bits<T>>(static_cast<T>(change(bit_cast<T>(before))));
  } while (!__atomic_compare_exchange_n(reinterpret_cast<Bits<T>*>(p), &before, after, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
  return bit_cast<T>(before);
}

template <typename T>
inline T atomic_add(u8* p, T value) {
  return atomic_change<T>(p, [=](T old) { return old + value; });
}
template <typename T>
inline T atomic_min(u8* p, T value) {
  return atomic_change<T>(p, [=](T old) { return value < old ? value : old; });
}
template <typename T>
inline T atomic_max(u8* p, T value) {
  return atomic_change<T>(p, [=](T old) { return value > old ? value : old; });
}
template <typename T>
inline T atomic_and(u8* p, T value) {
  return atomic_change<T>(p, [=](T old) { return old & value; });
}
template <typename T>
inline T atomic_or(u8* p, T value) {
  return atomic_change<T>(p, [=](T old) { return old | value; });
}
template <typename T>
inline T atomic_xor(u8* p, T value) {
  return atomic_change<T>(p, [=](T old) { return old ^ value; });
}
template <typename T>
inline T atomic_exch(u8* p, T value) {
  return atomic_change<T>(p, [=](T) { return value; });
}
template <typename T>
inline T atomic_cas(u8* p, T expected, T value) {
  return atomic_change<T>(p, [=](T old) { return old == expected ? value : old; });
}
// Wrap to 0 after `last`, and to `last` after 0.
template <typename T>
inline T atomic_inc(u8* p, T last) {
  return atomic_change<T>(p, [=](T old) { return old >= last ? 0 : old + 1; });
}
template <typename T>
inline T atomic_dec(u8* p, T last) {
  return atomic_change<T>(p, [=](T old) { return old == 0 || old > last ? last : old - 1; });
}
template <typename Format>
inline u16 atomic_add_narrow(u8* p, u16 value) {
  return atomic_change<u16>(p, [=](u16 old) { return narrow_add<Format>(old, value); });
}
template <typename Format>
inline u32 atomic_add_narrow_pair(u8* p, u32 value) {
  return atomic_change<u32>(p, [=](u32 old) { return packed<narrow_add<Format>>(old, value); });
}

}  // namespace emulator
