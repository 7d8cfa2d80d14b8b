#include "isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace resnet_fused::cpu {
namespace {

constexpr int kUndecided = -1;
std::atomic<int> active{kUndecided};

Isa parse(const std::string& name, const std::string& source) {
  for (int i = 0; i < kIsas; ++i) {
    Isa isa = static_cast<Isa>(i);
    if (name == isa_name(isa)) {
      if (!isa_supported(isa)) {
        throw std::runtime_error(source + " asks for " + name + ", which this CPU does not support");
      }
      return isa;
    }
  }
  throw std::runtime_error(source + " must be portable, avx2 or avx512, but got '" + name + "'");
}

Isa decide() {
  if (const char* name = std::getenv("RESNET_FUSED_ISA"); name && *name) {
    return parse(name, "RESNET_FUSED_ISA");
  }
  for (int i = kIsas - 1; i > 0; --i) {
    if (isa_supported(static_cast<Isa>(i))) {
      return static_cast<Isa>(i);
    }
  }
  return Isa::kPortable;
}

}  // namespace

const char* isa_name(Isa isa) {
  constexpr const char* kNames[kIsas] = {"portable", "avx2", "avx512"};
  return kNames[static_cast<int>(isa)];
}

bool isa_supported(Isa isa) {
  if (isa == Isa::kPortable) {
    return true;
  }
#if defined(__x86_64__)
  if (isa == Isa::kAvx2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  }
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

Isa active_isa() {
  int isa = active.load(std::memory_order_relaxed);
  if (isa == kUndecided) {  // two threads may both decide; they decide alike
    isa = static_cast<int>(decide());
    active.store(isa, std::memory_order_relaxed);
  }
  return static_cast<Isa>(isa);
}

void set_isa(const char* name) {
  active.store(static_cast<int>(parse(name, "set_isa")), std::memory_order_relaxed);
}

const Kernels& active_kernels() {
  return kernels_of(active_isa());  // which refuses an impossible RESNET_FUSED_ISA
}

const Kernels& kernels_of([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAvx512:
      return avx512::kernels;
    case Isa::kAvx2:
      return avx2::kernels;
    case Isa::kPortable:
      break;
  }
#endif
  return portable::kernels;
}

}  // namespace resnet_fused::cpu
