// Memory accesses that kernels leave to the runtime. Compiled with the sanitizer, as kernels are.
#include "scheduler.h"

namespace emulator {

void copy_bytes(u8* to, const u8* from, u32 bytes, u32 source_bytes) {
  u32 done = 0;
  for (; done + 4 <= source_bytes; done += 4) {
    poke(to + done, peek<u32>(from + done));
  }
  for (; done < bytes; ++done) {
    to[done] = done < source_bytes ? from[done] : 0;
  }
}

}  // namespace emulator
