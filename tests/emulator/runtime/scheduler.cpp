#include "scheduler.h"

#include <map>

namespace emulator {

Block block;
u32 fuel, patience;

namespace {

constexpr u32 kFuel = 1u << 16;         // iterations of loops until another lane may run
constexpr u32 kRefuelLimit = 1u << 10;  // 2^26 iterations of one lane: it waits for something that never happens

struct Warp {
  u32 present, ready, ended, at_request;  // a bit for each lane
};

struct {
  Function function;
  const u8* parameters;
  std::vector<LaneState> lanes{kMaxThreads};
  Warp warps[kMaxThreads / kWarpSize];
  u32 lane_count, live;
  u32 ready_warps;  // a bit for each warp
  bool descending;
  Fiber launcher;
  LaneState* current;
  std::string error;
  int end;  // for ThreadSanitizer: the launcher sees what lanes did
} running;

constexpr u32 kMostPatience = 128;

Schedule chosen = Schedule::kRandom;
u64 random_state = 1;

u32 random_bit(u32 bits) {
  const u32 turn = random_number() % 32;
  const u32 turned = turn ? bits >> turn | bits << (32 - turn) : bits;
  return (__builtin_ctz(turned) + turn) % 32;
}

u32 new_patience() {
  return chosen == Schedule::kRandom ? 1 + random_number() % kMostPatience : ~0u;
}

u32 some_bit(u32 bits) {
  if (chosen == Schedule::kRandom) {
    return random_bit(bits);
  }
  return running.descending ? 31 - __builtin_clz(bits) : __builtin_ctz(bits);
}

// Stays with a warp for a while, or as long as it can run, so that it gets far ahead of the others.
LaneState* next_lane() {
  if (!running.ready_warps) {
    return nullptr;
  }
  u32 warp = running.current->warpid;
  const bool leave = chosen == Schedule::kRandom && random_number() % 8 == 0;
  if (leave || !(running.ready_warps >> warp & 1)) {
    warp = some_bit(running.ready_warps);
  }
  return &running.lanes[warp * kWarpSize + some_bit(running.warps[warp].ready)];
}

// null: back to the launcher.
void run(LaneState& lane, LaneState* next) {
  if (next == &lane) {
    return;
  }
  if (next) {
    running.current = next;
  }
  switch_fiber(lane.fiber, next ? next->fiber : running.launcher, lane.status == Status::kEnded);
}

void run_next(LaneState& lane) {
  run(lane, next_lane());
}

void set_status(LaneState& lane, Status status) {
  lane.status = status;
  Warp& warp = running.warps[lane.warpid];
  const u32 bit = 1u << lane.laneid;
  warp.ready = status == Status::kReady ? warp.ready | bit : warp.ready & ~bit;
  warp.at_request = status == Status::kWarp ? warp.at_request | bit : warp.at_request & ~bit;
  const u32 warp_bit = 1u << lane.warpid;
  running.ready_warps = warp.ready ? running.ready_warps | warp_bit : running.ready_warps & ~warp_bit;
}

bool same(const Request& a, const Request& b) {
  return a.execute == b.execute && a.qualifiers == b.qualifiers && a.lanes == b.lanes &&
         (!a.aligned || a.site == b.site);
}

// Executes the request if every lane of its mask that has not ended has made it.
void try_request(u32 warp, const Request& request) {
  const u32 lanes = request.lanes & running.warps[warp].present & ~running.warps[warp].ended;
  if (lanes & ~running.warps[warp].at_request) {
    return;
  }
  LaneState* first = &running.lanes[warp * kWarpSize];
  for (u32 left = lanes; left; left &= left - 1) {
    if (!same(first[__builtin_ctz(left)].request, request)) {
      return;
    }
  }
  if (request.aligned && lanes != ~0u) {
    abandon(std::string(request.site->where) + ": " + request.site->text + ": not all 32 lanes of the warp take part");
  }
  request.execute(first, lanes);
  for (u32 left = lanes; left; left &= left - 1) {
    set_status(first[__builtin_ctz(left)], Status::kReady);
  }
}

void end_lane(LaneState& lane) {
  end_products(lane);
  end_copies(lane, &running.end);
  released(lane.fiber, &running.end);
  set_status(lane, Status::kEnded);
  Warp& warp = running.warps[lane.warpid];
  warp.ended |= 1u << lane.laneid;
  running.live -= 1;
  for (u32 left = warp.at_request; left; left &= left - 1) {
    const LaneState& other = running.lanes[lane.warpid * kWarpSize + __builtin_ctz(left)];
    if (other.status == Status::kWarp) {
      try_request(lane.warpid, other.request);
    }
  }
  try_barriers();
}

void run_lane() {
  fiber_started();
  LaneState& lane = *running.current;
  running.function(lane, running.parameters);
  end_lane(lane);
  run_next(lane);
  __builtin_unreachable();
}

void begin_lanes() {
  const u32 width = block.ntid[0], height = block.ntid[1];
  running.lane_count = running.live = width * height * block.ntid[2];
  running.ready_warps = 0;
  for (Warp& warp : running.warps) {
    warp = {};
  }
  for (u32 i = 0; i < running.lane_count; ++i) {
    LaneState& lane = running.lanes[i];
    lane.tid[0] = i % width;
    lane.tid[1] = i / width % height;
    lane.tid[2] = i / width / height;
    lane.laneid = i % kWarpSize;
    lane.warpid = i / kWarpSize;
    lane.refuelled = 0;
    running.warps[lane.warpid].present |= 1u << lane.laneid;
    start_fiber(lane.fiber, run_lane);
    set_status(lane, Status::kReady);
  }
}

// Nobody can go on: how many lanes wait where, and for what.
std::string deadlock() {
  std::map<std::string, u32> waiting;
  for (u32 i = 0; i < running.lane_count; ++i) {
    const LaneState& lane = running.lanes[i];
    if (lane.status == Status::kEnded) {
      waiting["have ended"] += 1;
      continue;
    }
    const Site& site = lane.status == Status::kWarp ? *lane.request.site : *lane.site;
    waiting[std::string("wait at ") + site.where + ": " + site.text] += 1;
  }
  std::string message = "deadlock:";
  for (const auto& [what, count] : waiting) {
    message += (message.back() == ':' ? " " : "; ") + std::to_string(count) + " lanes " + what;
  }
  return message;
}

}  // namespace

std::string run_block(Function function, const u8* parameters) {
  running.function = function;
  running.parameters = parameters;
  running.error.clear();
  running.descending = chosen == Schedule::kLatest && random_number() % 2;
  fuel = kFuel;
  patience = new_patience();
  begin_lanes();
  reset_barriers();
  reset_products();
  reset_async_proxy();
  adopt_thread(running.launcher);
  running.current = &running.lanes[0];
  running.current = next_lane();
  switch_fiber(running.launcher, running.current->fiber);
  running.current = nullptr;
  for (u32 i = 0; i < running.lane_count; ++i) {
    end_copies(running.lanes[i], &running.end);  // of lanes that are given up
    end_fiber(running.lanes[i].fiber);
  }
  return !running.error.empty() || !running.live ? running.error : deadlock();
}

void end_blocks() {
  acquired(running.launcher, &running.end);
}

void join(Lane& lane, const Request& request) {
  LaneState& self = state(lane);
  if (!(request.lanes >> lane.laneid & 1)) {
    fail(lane, *request.site, "the lane is not in its own mask");
  }
  land_some(self.copies);
  perform_some(self);
  self.request = request;
  set_status(self, Status::kWarp);
  try_request(lane.warpid, request);
  run_next(self);
}

void wait(LaneState& lane, Status status) {
  set_status(lane, status);
  run_next(lane);
}

void wake(LaneState& lane) {
  set_status(lane, Status::kReady);
}

void yield(Lane& lane) {
  run_next(state(lane));
}

// Whom it waits for may be of any warp, so that no schedule may pass over one for good.
void give_way(Lane& lane) {
  const u32 warp = random_bit(running.ready_warps);
  run(state(lane), &running.lanes[warp * kWarpSize + random_bit(running.warps[warp].ready)]);
}

void interrupt(Lane& lane) {
  patience = new_patience();
  give_way(lane);
}

// For ThreadSanitizer: what happened before any lane's fence is seen after a later one.
void memory_fence(Lane& lane) {
  static int cell;
  released(state(lane).fiber, &cell);
  acquired(state(lane).fiber, &cell);
}

void abandon(const std::string& message) {
  running.error = message;
  LaneState& lane = *running.current;
  switch_fiber(lane.fiber, running.launcher, true);
  __builtin_unreachable();
}

void fail(Lane& lane, const Site& site, const char* what) {
  const auto number = [](u32 n) { return std::to_string(n); };
  const std::string thread = number(lane.tid[0]) + "," + number(lane.tid[1]) + "," + number(lane.tid[2]);
  abandon("thread (" + thread + "): " + site.where + ": " + site.text + ": " + what);
}

void refuel(Lane& lane, const Site& site) {
  fuel = kFuel;
  if (++state(lane).refuelled == kRefuelLimit) {
    fail(lane, site, "the loop does not end");
  }
  give_way(lane);
}

void count_back_edge(Lane& lane, const Site& site) {
  if (--fuel == 0) {
    refuel(lane, site);
  }
}

LaneState& lane_at(u32 index) {
  return running.lanes[index];
}
LaneState& current_lane() {
  return *running.current;
}
bool lanes_run() {
  return running.current != nullptr;
}
u32 lane_count() {
  return running.lane_count;
}
u32 live_lanes() {
  return running.live;
}
void next_phase() {
  running.descending = !running.descending;
}

void set_schedule(Schedule schedule, u64 seed) {
  chosen = schedule;
  random_state = seed * 2 + 1;
}
Schedule schedule() {
  return chosen;
}
u32 random_number() {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<u32>(random_state >> 33);
}

}  // namespace emulator
