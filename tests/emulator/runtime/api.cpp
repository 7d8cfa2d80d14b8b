#include "emulator.h"

#include <string>

#include "counters.h"
#include "launch.h"
#include "memory.h"
#include "scheduler.h"

namespace emulator {
namespace {

std::string& last_error() {
  static auto* instance = new std::string;
  return *instance;
}

}  // namespace

void set_last_error(const std::string& message) {
  last_error() = message;
}

}  // namespace emulator

const char* emulator_last_error() {
  static auto* shown = new std::string;
  shown->swap(emulator::last_error());
  emulator::last_error().clear();
  return shown->empty() ? nullptr : shown->c_str();
}

void emulator_guard(const void* begin, size_t bytes) {
  emulator::guard(begin, bytes);
}

void emulator_unguard(const void* begin) {
  emulator::unguard(begin);
}

int emulator_set_schedule(const char* schedule, uint64_t seed) {
  const std::string name = schedule;
  if (name != "random" && name != "latest") {
    return 1;
  }
  emulator::set_schedule(name == "random" ? emulator::Schedule::kRandom : emulator::Schedule::kLatest, seed);
  return 0;
}

int emulator_launch(const char* kernel, const uint32_t* grid, const uint32_t* threads, size_t dynamic_shared_bytes,
                    void** arguments) {
  const emulator::Entry* entry = emulator::find_entry(kernel);
  if (!entry) {
    emulator::set_last_error(std::string("no kernel is called ") + kernel);
    return 1;
  }
  const emulator::LaunchShape shape = {
      {grid[0], grid[1], grid[2]}, {threads[0], threads[1], threads[2]}, dynamic_shared_bytes};
  std::string error = emulator::why_refused(*entry, shape);
  error = error.empty() ? emulator::launch(*entry, shape, arguments) : emulator::readable(kernel) + ": " + error;
  emulator::set_last_error(error);
  return !error.empty();
}

void emulator_set_counting(int enabled) {
  emulator::set_counting(enabled != 0);
}

const char* emulator_counters() {
  static auto* shown = new std::string;
  *shown = emulator::counters_json();
  return shown->c_str();
}

void emulator_reset_counters() {
  emulator::reset_counters();
}
