#include "arithmetic.h"

#include <fenv.h>

#include <cmath>

#include "conversions.h"

namespace emulator {
namespace {

// Calls `operation` in the given mode, with its operands out of the compiler's sight (and -frounding-math).
template <typename Operation>
auto in_mode(Round round, const Operation& operation) {
  constexpr int kModes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  fesetround(kModes[static_cast<int>(round)]);
  const volatile auto result = operation();
  fesetround(FE_TONEAREST);
  return +result;
}

template <typename T>
T hidden(T value) {
  asm volatile("" : "+x"(value));
  return value;
}

// To a format with `digits` bits of mantissa, the first one included, whose least normal number is 2^lowest. In the
// direction of `round` (not nearest).
double to_format(Round round, double a, int digits, int lowest, double largest) {
  if (a == 0 || !std::isfinite(a)) {
    return a;
  }
  const int exponent = std::max(std::ilogb(a), lowest) - (digits - 1);
  const double cut = std::ldexp(round_to_integer(round, std::ldexp(a, -exponent)), exponent);
  if (std::fabs(cut) <= largest) {
    return cut;
  }
  const bool outward = round == (a > 0 ? Round::kUp : Round::kDown);
  return std::copysign(outward ? HUGE_VAL : largest, a);
}

}  // namespace

#define DEFINE_BINARY(name, op)                                  \
  float name(Round round, float a, float b) {                    \
    return in_mode(round, [&] { return hidden(a) op hidden(b); }); \
  }                                                              \
  double name(Round round, double a, double b) {                 \
    return in_mode(round, [&] { return hidden(a) op hidden(b); }); \
  }
DEFINE_BINARY(add_rounded, +)
DEFINE_BINARY(multiply_rounded, *)
DEFINE_BINARY(divide_rounded, /)
#undef DEFINE_BINARY

float fma_rounded(Round round, float a, float b, float c) {
  return in_mode(round, [&] { return std::fma(hidden(a), hidden(b), hidden(c)); });
}
double fma_rounded(Round round, double a, double b, double c) {
  return in_mode(round, [&] { return std::fma(hidden(a), hidden(b), hidden(c)); });
}
float sqrt_rounded(Round round, float a) {
  return in_mode(round, [&] { return std::sqrt(hidden(a)); });
}
double sqrt_rounded(Round round, double a) {
  return in_mode(round, [&] { return std::sqrt(hidden(a)); });
}

float exp2_exact(float a) {
  return static_cast<float>(std::exp2(static_cast<double>(a)));
}
float log2_exact(float a) {
  return static_cast<float>(std::log2(static_cast<double>(a)));
}
float sin_exact(float a) {
  return static_cast<float>(std::sin(static_cast<double>(a)));
}
float cos_exact(float a) {
  return static_cast<float>(std::cos(static_cast<double>(a)));
}
float tanh_exact(float a) {
  return static_cast<float>(std::tanh(static_cast<double>(a)));
}

float float_from(Round round, double a) {
  return in_mode(round, [&] { return static_cast<float>(hidden(a)); });
}
float float_from(Round round, s64 a) {
  return in_mode(round, [&] { return static_cast<float>(*const_cast<volatile s64*>(&a)); });
}
float float_from(Round round, u64 a) {
  return in_mode(round, [&] { return static_cast<float>(static_cast<long double>(*const_cast<volatile u64*>(&a))); });
}
double double_from(Round round, s64 a) {
  return in_mode(round, [&] { return static_cast<double>(*const_cast<volatile s64*>(&a)); });
}
double double_from(Round round, u64 a) {
  return in_mode(round, [&] { return static_cast<double>(static_cast<long double>(*const_cast<volatile u64*>(&a))); });
}

u16 f16_from(Round round, double a) {
  return F16::from(to_format(round, a, 11, -14, 65504.0));
}
u16 bf16_from(Round round, double a) {
  return BF16::from(to_format(round, a, 8, -126, std::ldexp(255.0, 120)));
}

}  // namespace emulator
