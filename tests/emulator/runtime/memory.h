// Which addresses of global memory a kernel may access.
#pragma once

#include <mutex>

#include "types.h"

namespace emulator {

constexpr u64 kRedzone = 256;

// Accesses within kRedzone bytes of a guarded range, and in no guarded range, are errors. Ranges do not overlap.
void guard(const void* begin, u64 bytes);
void unguard(const void* begin);

// Held while a kernel runs.
std::recursive_mutex& memory_mutex();

// While true, memory_epoch is a number that no site has, so that every access is seen.
void set_counting(bool enabled);

}  // namespace emulator
