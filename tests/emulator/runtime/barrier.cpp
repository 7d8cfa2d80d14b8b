// bar.sync and its kin. A lane that has ended is not waited for.
#include "counters.h"
#include "scheduler.h"

namespace emulator {
namespace {

constexpr u32 kBarriers = 16;

struct Barrier {
  u32 arrived, threads;  // threads == 0: all that have not ended
  u32 count;             // bar.red
  bool all;
  u32 generation;
  int cell;  // for ThreadSanitizer
};

Barrier barriers[kBarriers];
u32 begun;  // a bit for each barrier where lanes have arrived
// Where lanes of each warp wait, or null.
Site* waiting_at[kMaxThreads / kWarpSize];
struct {
  u32 count;
  bool all;
} results[kBarriers];

void complete(u32 id) {
  Barrier& b = barriers[id];
  results[id] = {b.count, b.all};
  b.arrived = b.threads = b.count = 0;
  b.all = true;
  b.generation += 1;
  begun &= ~(1u << id);
  for (u32 i = 0; i < lane_count(); ++i) {
    if (lane_at(i).status == Status::kBarrier && lane_at(i).barrier == id) {
      acquired(lane_at(i).fiber, &b.cell);
      waiting_at[lane_at(i).warpid] = nullptr;
      wake(lane_at(i));
    }
  }
  next_phase();
  count_barrier();
}

void try_complete(u32 id) {
  const Barrier& b = barriers[id];
  if (b.arrived && b.arrived == (b.threads ? b.threads : live_lanes())) {
    complete(id);
  }
}

// The lanes of a warp come to a barrier together, so at the same one.
void check_aligned(Lane& lane, Site& site) {
  const Site* other = waiting_at[lane.warpid];
  if (other && other != &site) {
    fail(lane, site, (std::string("divergent barrier: a lane of the warp waits at ") + other->where).c_str());
  }
}

void arrive(Lane& lane, Site& site, bool aligned, u32 id, u32 threads) {
  if (id >= kBarriers) {
    fail(lane, site, "there are 16 barriers");
  }
  if (threads % kWarpSize != 0) {
    fail(lane, site, "the number of threads is not a multiple of 32");
  }
  if (aligned) {
    check_aligned(lane, site);
  }
  Barrier& b = barriers[id];
  if (b.arrived && b.threads != threads) {
    fail(lane, site, "lanes give the barrier different numbers of threads");
  }
  land_some(state(lane).copies);
  perform_some(state(lane));
  b.threads = threads;
  b.arrived += 1;
  begun |= 1u << id;
  released(state(lane).fiber, &b.cell);
}

void wait_at(Lane& lane, Site& site, u32 id) {
  LaneState& self = state(lane);
  Barrier& b = barriers[id];
  self.site = waiting_at[lane.warpid] = &site;
  self.barrier = id;
  self.status = Status::kBarrier;
  const u32 generation = b.generation;
  try_complete(id);
  if (b.generation == generation) {
    wait(self, Status::kBarrier);
  } else {
    yield(lane);
  }
}

}  // namespace

void reset_barriers() {
  for (Barrier& b : barriers) {
    b = {0, 0, 0, true, 0, 0};
  }
  begun = 0;
  for (Site*& site : waiting_at) {
    site = nullptr;
  }
}

void try_barriers() {
  for (u32 left = live_lanes() ? begun : 0; left; left &= left - 1) {
    try_complete(__builtin_ctz(left));
  }
}

void barrier(Lane& lane, Site& site, bool aligned, u32 id, u32 threads) {
  arrive(lane, site, aligned, id, threads);
  wait_at(lane, site, id);
}

void barrier_arrive(Lane& lane, Site& site, bool aligned, u32 id, u32 threads) {
  arrive(lane, site, aligned, id, threads);
  try_complete(id);
}

u32 barrier_reduce(Lane& lane, Site& site, bool aligned, BarrierRed operation, bool value, u32 id, u32 threads) {
  arrive(lane, site, aligned, id, threads);
  barriers[id].count += value;
  barriers[id].all &= value;
  wait_at(lane, site, id);
  switch (operation) {
    case BarrierRed::kPopc:
      return results[id].count;
    case BarrierRed::kAnd:
      return results[id].all;
    case BarrierRed::kOr:
      return results[id].count != 0;
  }
  __builtin_unreachable();
}

}  // namespace emulator
