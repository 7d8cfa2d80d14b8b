// The emulator's C interface; library.py declares the same.
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)
extern "C" {

// The message of the last launch that failed, or null. Asking clears it.
const char* emulator_last_error();

// Kernels' accesses within 256 bytes of a guarded range, and in none, are errors. Ranges must not overlap.
void emulator_guard(const void* begin, size_t bytes);
void emulator_unguard(const void* begin);

// "random": lanes, warps and blocks run in a random order, and copies land at any time. "latest": copies land as late
// as they may, and a warp runs as far ahead of the others as it can. Nonzero for any other name.
int emulator_set_schedule(const char* schedule, uint64_t seed);

// Launches a kernel by its name in the PTX, as cudaLaunchKernel does by its function. Nonzero if it failed.
int emulator_launch(const char* kernel, const uint32_t* grid, const uint32_t* threads, size_t dynamic_shared_bytes,
                    void** arguments);

// Counts memory accesses from here on, or no longer. The counts of all launches by kernel, as JSON; valid until asked
// again.
void emulator_set_counting(int enabled);
const char* emulator_counters();
void emulator_reset_counters();
}
#pragma GCC visibility pop
