// Which instruction set's kernels run. Chosen once, at first use.
#pragma once

#include "kernels.h"

namespace resnet_fused::cpu {

enum class Isa : int { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };
constexpr int kIsas = 3;

const char* isa_name(Isa isa);
// Whether this build has the kernels and this CPU (and its operating system) can run them.
bool isa_supported(Isa isa);

// The best supported one, unless RESNET_FUSED_ISA=portable|avx2|avx512 names another. Throws
// std::runtime_error if it names an unknown or unsupported one.
Isa active_isa();
// Overrides the choice, for tests; no operation may be running.
void set_isa(const char* name);

const Kernels& active_kernels();
// Whether or not this CPU can run them: their tiles' sizes belong to plans.
const Kernels& kernels_of(Isa isa);

}  // namespace resnet_fused::cpu
