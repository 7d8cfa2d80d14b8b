#include "launch.h"

#include <cxxabi.h>
#include <fenv.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <map>
#include <vector>

#include "counters.h"
#include "fault.h"
#include "memory.h"
#include "scheduler.h"

namespace emulator {
namespace {

constexpr u8 kPoison = 0xff;

// Never destroyed: libraries may be loaded and left in any order.
template <typename T>
std::map<std::string, T>& table() {
  static auto* instance = new std::map<std::string, T>;
  return *instance;
}

// Shared memory of one block after another.
class SharedMemory {
 public:
  explicit SharedMemory(u32 bytes) : bytes_(bytes), window_(map_memory(kSharedWindow)) {
  }
  ~SharedMemory() {
    munmap(window_, kSharedWindow);
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  u8* fresh() {
#ifdef EMULATOR_THREAD  // must not take it for the last block's
    munmap(window_, kSharedWindow);
    window_ = map_memory(kSharedWindow);
#endif
    memset(window_, kPoison, bytes_);
    return static_cast<u8*>(window_);
  }

 private:
  u32 bytes_;
  void* window_;
};

std::vector<u8> pack_arguments(const Entry& entry, void** arguments) {
  std::vector<u8> packed(entry.parameter_bytes);
  for (u32 i = 0; i < entry.parameter_count; ++i) {
    memcpy(packed.data() + entry.parameters[i].offset, arguments[i], entry.parameters[i].size);
  }
  return packed;
}

// Blocks come in any order: a step that has no factor in common with their number, from any of them.
class BlockOrder {
 public:
  explicit BlockOrder(u64 count) : count_(count), next_(random_number() % count), step_(count == 1 ? 1 : count - 1) {
    if (schedule() == Schedule::kRandom) {
      do {
        step_ = 1 + random_number() % count;
      } while (greatest_common_divisor(step_, count) != 1);
    }
  }
  u64 next() {
    next_ = (next_ + step_) % count_;
    return next_;
  }

 private:
  static u64 greatest_common_divisor(u64 a, u64 b) {
    return b ? greatest_common_divisor(b, a % b) : a;
  }
  u64 count_, next_, step_;
};

std::string where(const Entry& entry) {
  const auto number = [](u32 n) { return std::to_string(n); };
  return readable(entry.name) + ", block (" + number(block.ctaid[0]) + "," + number(block.ctaid[1]) + "," +
         number(block.ctaid[2]) + "): ";
}

}  // namespace

Registration::Registration(const Entry* entries, u32 entry_count, const ModuleVariable* variables, u32 variable_count) {
  for (u32 i = 0; i < entry_count; ++i) {
    const Entry*& known = table<const Entry*>()[entries[i].name];
    // A template that two files instantiate is one kernel. Two kernels of one name would be a mistake.
    if (known && strcmp(known->hash, entries[i].hash) != 0) {
      set_last_error(std::string("two kernels are called ") + entries[i].name);
    }
    known = &entries[i];
  }
  for (u32 i = 0; i < variable_count; ++i) {
    table<const ModuleVariable*>()[variables[i].name] = &variables[i];
    guard(variables[i].address, variables[i].size);
  }
}

const Entry* find_entry(const char* name) {
  const auto found = table<const Entry*>().find(name);
  return found == table<const Entry*>().end() ? nullptr : found->second;
}

std::string readable(const std::string& mangled) {
  int status;
  char* demangled = abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status);
  const std::string name = demangled ? demangled : mangled;
  free(demangled);
  return name;
}

const ModuleVariable* find_variable(const char* name) {
  const auto found = table<const ModuleVariable*>().find(name);
  return found == table<const ModuleVariable*>().end() ? nullptr : found->second;
}

std::string why_refused(const Entry& entry, const LaunchShape& shape) {
  const auto [x, y, z] = shape.grid;
  const u64 threads = u64(shape.threads[0]) * shape.threads[1] * shape.threads[2];
  if (x == 0 || y == 0 || z == 0 || x > 0x7fffffffu || y > 65535 || z > 65535) {
    return "the grid is " + std::to_string(x) + " x " + std::to_string(y) + " x " + std::to_string(z) +
           ", but at least 1 and at most 2147483647 x 65535 x 65535 are possible";
  }
  if (threads == 0 || threads > kThreadsPerBlock || shape.threads[2] > 64) {
    return "a block has " + std::to_string(threads) + " threads, but at least 1 and at most 1024 (64 along z) may be";
  }
  if (entry.max_threads && threads > entry.max_threads) {
    return "a block has " + std::to_string(threads) + " threads, but __launch_bounds__ is " +
           std::to_string(entry.max_threads);
  }
  const u64 shared_bytes = entry.static_shared_bytes + shape.dynamic_shared_bytes;
  if (shared_bytes > kSharedBytesPerBlockOptIn) {
    return std::to_string(shared_bytes) + " bytes of shared memory are more than the 166912 of a block";
  }
  return "";
}

std::string launch(const Entry& entry, const LaunchShape& shape, void** arguments) {
  std::lock_guard<std::recursive_mutex> lock(memory_mutex());
  const std::vector<u8> parameters = pack_arguments(entry, arguments);
  memcpy(block.nctaid, shape.grid, sizeof shape.grid);
  memcpy(block.ntid, shape.threads, sizeof shape.threads);
  block.dynamic_shared_bytes = static_cast<u32>(shape.dynamic_shared_bytes);
  block.shared_bytes = entry.static_shared_bytes + block.dynamic_shared_bytes;
  SharedMemory shared(block.shared_bytes);
  const u64 count = u64(shape.grid[0]) * shape.grid[1] * shape.grid[2];
  BlockOrder order(count);
  std::string error;
#ifndef EMULATOR_SANITIZE  // which reports faults itself
  const FaultHandler faults;
#endif
  fenv_t environment;
  feholdexcept(&environment);
  fesetenv(FE_DFL_ENV);  // the caller may flush subnormal numbers
  begin_launch_counters(entry);
  for (u64 i = 0; i < count && error.empty(); ++i) {
    const u64 index = order.next();
    block.ctaid[0] = static_cast<u32>(index % shape.grid[0]);
    block.ctaid[1] = static_cast<u32>(index / shape.grid[0] % shape.grid[1]);
    block.ctaid[2] = static_cast<u32>(index / shape.grid[0] / shape.grid[1]);
    block.shared = shared.fresh();
    error = run_block(entry.function, parameters.data());
    end_block_counters();
  }
  end_blocks();
  end_launch_counters();
  fesetenv(&environment);
  return error.empty() ? error : where(entry) + error;
}

}  // namespace emulator
