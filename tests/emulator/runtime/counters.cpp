#include "counters.h"

namespace emulator {

void count_global(const Lane&, const Site&, u64, u32, Access) {
}
void count_shared(const Lane&, const Site&, u32, u32, Access) {
}
void begin_launch_counters(const Entry&) {
}
void end_block_counters() {
}
void end_launch_counters() {
}
std::string counters_json() {
  return "{}";
}
void reset_counters() {
}

}  // namespace emulator
