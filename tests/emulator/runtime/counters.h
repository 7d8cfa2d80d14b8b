// What kernels ask of memory, counted while `counting` is true.
#pragma once

#include <string>

#include "lane.h"

namespace emulator {

void count_global(const Lane& lane, const Site& site, u64 address, u32 bytes, Access access);
void count_shared(const Lane& lane, const Site& site, u32 address, u32 bytes, Access access);
void count_barrier();  // one that all of its lanes have reached

// Around a launch, and after each block of it.
void begin_launch_counters(const Entry& entry);
void end_block_counters();
void end_launch_counters();

std::string counters_json();
void reset_counters();

}  // namespace emulator
