// Launching a translated kernel over a grid.
#pragma once

#include <string>

#include "lane.h"

namespace emulator {

constexpr u32 kThreadsPerBlock = 1024;
constexpr u64 kSharedBytesPerBlockOptIn = 163 << 10;  // of a block that asks for more than usual, on an A100

// By its mangled name, or null. Kernels register themselves when the library is loaded.
const Entry* find_entry(const char* name);
std::string readable(const std::string& mangled);
const ModuleVariable* find_variable(const char* name);

struct LaunchShape {
  u32 grid[3], threads[3];
  u64 dynamic_shared_bytes;
};

// "", or why a driver would not launch it.
std::string why_refused(const Entry& entry, const LaunchShape& shape);

// "", or what went wrong. `arguments` are pointers to the kernel's, as cudaLaunchKernel takes them.
std::string launch(const Entry& entry, const LaunchShape& shape, void** arguments);

// Of the last launch that failed, until it is asked for.
void set_last_error(const std::string& message);

}  // namespace emulator
