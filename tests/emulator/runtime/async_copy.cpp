// cp.async. Until a copy lands, its destination is poisoned; it lands at a random time, or as late as its wait allows.
#include <string.h>

#include "scheduler.h"

namespace emulator {

namespace {

constexpr u8 kPoison = 0xff;

void land_at(AsyncCopies& copies, size_t i) {
  const AsyncCopy& copy = copies.pending[i];
  copy_bytes(copy.to, copy.from, copy.bytes, copy.source_bytes);
  copies.pending.erase(copies.pending.begin() + i);
}

// Those of the groups before `end`.
void land_groups(AsyncCopies& copies, u32 end) {
  size_t kept = 0;
  for (const AsyncCopy& copy : copies.pending) {
    if (copy.group < end) {
      copy_bytes(copy.to, copy.from, copy.bytes, copy.source_bytes);
    } else {
      copies.pending[kept++] = copy;
    }
  }
  copies.pending.resize(kept);
}

}  // namespace

void reset_copies(AsyncCopies& copies) {
  copies.pending.clear();
  copies.groups = 0;
}

void land_some(AsyncCopies& copies) {
  if (schedule() != Schedule::kRandom) {
    return;
  }
  while (!copies.pending.empty() && random_number() % 4 == 0) {
    land_at(copies, random_number() % copies.pending.size());
  }
}

void copy_async(Lane& lane, Site& site, u32 to, u64 from, u32 bytes, u32 source_bytes) {
  u8* destination = check_shared(lane, site, to, bytes, Access::kWrite);
  if (from % bytes != 0) {
    fail(lane, site, "the source is misaligned");
  }
  if (source_bytes > bytes) {
    fail(lane, site, "more bytes are read than written");
  }
  for (u32 i = 0; i < source_bytes; i += 4) {
    check_global(lane, site, from + i, source_bytes - i < 4 ? 1 : 4, Access::kRead);
  }
  AsyncCopies& copies = state(lane).copies;
  memset(destination, kPoison, bytes);
  copies.pending.push_back({destination, reinterpret_cast<const u8*>(from), bytes, source_bytes, copies.groups});
  land_some(copies);
  if (schedule() == Schedule::kRandom && random_number() % 16 == 0) {
    yield(lane);
  }
}

void copy_commit(Lane& lane) {
  state(lane).copies.groups += 1;
}

void copy_wait(Lane& lane, u32 newest_groups_not_waited_for) {
  AsyncCopies& copies = state(lane).copies;
  if (copies.groups > newest_groups_not_waited_for) {
    land_groups(copies, copies.groups - newest_groups_not_waited_for);
  }
}

void copy_wait_all(Lane& lane) {
  AsyncCopies& copies = state(lane).copies;
  land_groups(copies, copies.groups + 1);
}

}  // namespace emulator
