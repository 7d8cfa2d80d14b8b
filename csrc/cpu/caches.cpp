// The caches of this machine.
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>

#include "conv_plan.h"

namespace resnet_fused::cpu {
namespace {

// Of the first processor, as the kernel knows it; 0 where it does not say. (The C library multiplies the last level by the
// processors that a package has, not by those that there are.)
int64_t from_kernel(int level) {
  for (int index = 0; index < 8; ++index) {
    std::string cache = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
    std::ifstream level_file(cache + "/level"), type_file(cache + "/type"), size_file(cache + "/size");
    int found = 0;
    int64_t kib = 0;
    std::string type;
    if (level_file >> found && type_file >> type && size_file >> kib && found == level && type != "Instruction") {
      return kib * 1024;
    }
  }
  return 0;
}

int64_t cache_size(int level, int name, int64_t otherwise) {
  int64_t bytes = from_kernel(level);
  if (bytes <= 0 && name >= 0) {
    bytes = sysconf(name);
  }
  return bytes > 0 ? bytes : otherwise;
}

#if defined(_SC_LEVEL2_CACHE_SIZE)
constexpr int kNames[] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
#else
constexpr int kNames[] = {-1, -1, -1};
#endif

// What can be counted on of the third level: a virtual machine with few of a processor's cores is shown all of it.
int64_t share(int64_t l3) {
  constexpr int64_t kLeast = 32 << 20, kOfEach = 4 << 20;
  return std::min(l3, std::max(kLeast, kOfEach * std::thread::hardware_concurrency()));
}

}  // namespace

Caches machine_caches() {
  static const Caches caches{cache_size(2, kNames[1], 512 << 10), share(cache_size(3, kNames[2], 8 << 20)),
                             cache_size(1, kNames[0], 32 << 10)};
  return caches;
}

}  // namespace resnet_fused::cpu
