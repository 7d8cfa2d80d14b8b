// cp.async. Until a copy lands, its destination is poisoned; it lands at a random time, or as late as its wait allows.
//
// For ThreadSanitizer a copy is made at once, by a thread that stands for its group: started by the lane, and joined by
// it when it waits for the group. Whoever reads the destination without that is in a race with the copy.
#include <string.h>

#include <algorithm>

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

#ifdef EMULATOR_THREAD
constexpr bool kThreads = true;
#else
constexpr bool kThreads = false;
#endif

void copy_by_thread(LaneState& lane, const AsyncCopy& copy) {
  auto& threads = lane.copies.threads;
  if (threads.empty() || threads.back()->group != copy.group) {
    threads.push_back(std::make_unique<CopyThread>());
    threads.back()->group = copy.group;
    start_shadow(threads.back()->fiber);
  }
  CopyThread& thread = *threads.back();
  released(lane.fiber, &thread.start);
  acquired(thread.fiber, &thread.start);
  enter(thread.fiber);
  copy_bytes(copy.to, copy.from, copy.bytes, copy.source_bytes);
  leave(lane.fiber);
}

void join_threads(LaneState& lane, u32 end) {
  auto& threads = lane.copies.threads;
  while (!threads.empty() && threads.front()->group < end) {
    CopyThread& thread = *threads.front();
    released(thread.fiber, &thread.end);
    acquired(lane.fiber, &thread.end);
    end_shadow(thread.fiber);
    threads.erase(threads.begin());
  }
}

void wait_before(LaneState& lane, u32 end) {
  lane.copies.waited = std::max(lane.copies.waited, end);
  land_groups(lane.copies, end);
  join_threads(lane, end);
}

}  // namespace

void end_copies(LaneState& lane, void* cell) {
  AsyncCopies& copies = lane.copies;
  copies.pending.clear();
  copies.groups = copies.waited = 0;
  for (const auto& thread : copies.threads) {
    released(thread->fiber, cell);
    end_shadow(thread->fiber);
  }
  copies.threads.clear();
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
  const u8* source = check_copied(lane, site, from, source_bytes);
  AsyncCopies& copies = state(lane).copies;
  const AsyncCopy copy = {destination, source, bytes, source_bytes, copies.groups};
  if (kThreads) {
    copy_by_thread(state(lane), copy);
    return;
  }
  memset(destination, kPoison, bytes);
  copies.pending.push_back(copy);
  land_some(copies);
  if (schedule() == Schedule::kRandom && random_number() % 16 == 0) {
    yield(lane);
  }
}

void copy_commit(Lane& lane) {
  state(lane).copies.groups += 1;
}

void copy_wait(Lane& lane, u32 newest_groups_not_waited_for) {
  const u32 groups = state(lane).copies.groups;
  if (groups > newest_groups_not_waited_for) {
    wait_before(state(lane), groups - newest_groups_not_waited_for);
  }
}

void copy_wait_all(Lane& lane) {
  copy_commit(lane);
  wait_before(state(lane), state(lane).copies.groups);
}

}  // namespace emulator
