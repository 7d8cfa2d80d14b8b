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
