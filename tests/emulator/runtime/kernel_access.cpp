// Memory accesses that kernels leave to the runtime. Compiled with the sanitizer, as kernels are.
#include "scheduler.h"

namespace emulator {

void copy_bytes(u8* to, const u8* from, u32 bytes, u32 source_bytes) {
  for (u32 i = 0; i < bytes; ++i) {
    to[i] = i < source_bytes ? from[i] : 0;
  }
}

}  // namespace emulator
