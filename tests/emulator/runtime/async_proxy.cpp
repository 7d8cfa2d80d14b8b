// Bytes of shared memory that a thread has written, as threads do, and not yet ordered by fence.proxy.async before what
// the async proxy reads. Whether a barrier follows the fence is not seen here: without one, lanes read what was before.
#include <string>
#include <vector>

#include "scheduler.h"

namespace emulator {
namespace {

// A write that fence.proxy.async has not followed. Copies by cp.async must be waited for first.
struct Write {
  u32 address, bytes;
  bool copy;
  u32 group;  // of the copy
};

struct Proxy {
  std::vector<u16> writer;  // by byte: 1 + the thread whose write is the last, or 0 where it has been fenced
  std::vector<Write> writes[kMaxThreads];
};
Proxy& proxy = *new Proxy;  // never destroyed, by a thread that is not the bookkeeper

u32 thread_of(const Lane& lane) {
  return lane.warpid * kWarpSize + lane.laneid;
}

void record(Lane& lane, const Write& write) {
  const AsBookkeeper as_bookkeeper;
  proxy.writer.resize(block.shared_bytes);
  const u16 writer = static_cast<u16>(1 + thread_of(lane));
  bool known = !write.copy;
  for (u32 byte = write.address; byte < write.address + write.bytes; ++byte) {
    known = known && proxy.writer[byte] == writer;
    proxy.writer[byte] = writer;
  }
  if (!known) {
    proxy.writes[thread_of(lane)].push_back(write);
  }
}

}  // namespace

void reset_async_proxy() {
  const AsBookkeeper as_bookkeeper;
  if (!proxy.writer.empty()) {
    proxy.writer.clear();
    for (std::vector<Write>& writes : proxy.writes) {
      writes.clear();
    }
  }
}

u8* written(Lane& lane, u8* p, u32 bytes) {
  if (is_shared(reinterpret_cast<u64>(p))) {
    record(lane, {static_cast<u32>(p - block.shared), bytes, false, 0});
  }
  return p;
}

void copied(Lane& lane, u32 address, u32 bytes) {
  record(lane, {address, bytes, true, state(lane).copies.groups});
}

void fence_async_proxy(Lane& lane) {
  const AsBookkeeper as_bookkeeper;
  const u16 writer = static_cast<u16>(1 + thread_of(lane));
  std::vector<Write>& writes = proxy.writes[thread_of(lane)];
  const std::vector<Write> before = std::move(writes);
  writes.clear();
  for (const Write& write : before) {
    if (write.copy && write.group >= state(lane).copies.waited) {
      continue;
    }
    for (u32 byte = write.address; byte < write.address + write.bytes; ++byte) {
      proxy.writer[byte] = proxy.writer[byte] == writer ? 0 : proxy.writer[byte];
    }
  }
  for (const Write& write : before) {  // again: an older write to the same bytes may have been fenced
    if (write.copy && write.group >= state(lane).copies.waited) {
      record(lane, write);
    }
  }
}

void check_fenced(Lane& lane, const Site& site, u32 address, u32 bytes) {
  if (proxy.writer.empty()) {
    return;
  }
  for (u32 byte = address; byte < address + bytes; ++byte) {
    if (proxy.writer[byte]) {
      const std::string what = "byte " + std::to_string(byte) + " of shared memory, which thread " +
                               std::to_string(proxy.writer[byte] - 1) +
                               " wrote, is read through the async proxy without fence.proxy.async";
      fail(lane, site, what.c_str());
    }
  }
}

}  // namespace emulator
