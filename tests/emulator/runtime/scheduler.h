// One block: which lane runs next, and what lanes wait for.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "lane.h"

namespace emulator {

constexpr u32 kWarpSize = 32;
constexpr u32 kMaxThreads = 1024;

struct LaneState;

// What a lane asks of its warp. The lanes of the mask must all ask the same.
struct Request {
  // On the lanes of the warp that are in the mask and have not ended.
  void (*execute)(LaneState* warp, u32 lanes);
  u32 qualifiers;
  u32 lanes;
  bool aligned;  // all 32, and at the same instruction
  Site* site;
  const void* operands;
  void* result;
};

struct AsyncCopy {
  u8* to;
  const u8* from;
  u32 bytes, source_bytes;
  u32 group;
};

// What ThreadSanitizer takes a group of copies for.
struct CopyThread {
  u32 group;
  Fiber fiber;
  int start, end;
};

// cp.async by one lane.
struct AsyncCopies {
  std::vector<AsyncCopy> pending;
  u32 groups = 0;  // committed so far
  u32 waited = 0;  // the groups before this one
  std::vector<std::unique_ptr<CopyThread>> threads;
};

enum class Status : u8 { kReady, kWarp, kBarrier, kWarpgroup, kEnded };

struct LaneState : Lane {
  Fiber fiber;
  Status status;
  Request request;  // kWarp
  Site* site;       // kBarrier, kWarpgroup: where
  u32 barrier;
  u32 refuelled;
  AsyncCopies copies;
};

inline LaneState& state(Lane& lane) {
  return static_cast<LaneState&>(lane);
}

enum class Schedule { kRandom, kLatest };
void set_schedule(Schedule schedule, u64 seed);
Schedule schedule();
u32 random_number();

// Runs `function` on every lane of the block: "", or what went wrong.
std::string run_block(Function function, const u8* parameters);
// After the last block of a launch. Until then no block is ordered after another.
void end_blocks();

// For lanes. join: waits until the lanes of the request's mask have asked the same, and it was executed.
void join(Lane& lane, const Request& request);
void wait(LaneState& lane, Status status);  // until wake()
void wake(LaneState& lane);
void yield(Lane& lane);  // another lane may run
[[noreturn]] void abandon(const std::string& message);  // ends the launch

LaneState& lane_at(u32 index);
LaneState& current_lane();
bool lanes_run();  // rather than the launcher
u32 lane_count();
u32 live_lanes();
void next_phase();  // another order of lanes and warps, in the schedule that is not random

// barrier.cpp
void reset_barriers();
void try_barriers();  // a lane ended: the others may be complete

// kernel_access.cpp: copies source_bytes and fills up with zeros.
void copy_bytes(u8* to, const u8* from, u32 bytes, u32 source_bytes);

// tensor_core.cpp: d [16][n] = a [16][k] b [k][n], or += if `add`. Elements as in memory, [k][] where an operand is
// MN-major.
void multiply_rows(const WarpgroupShape& shape, const u8* a, const u8* b, bool add, float* d);

// warpgroup.cpp
void reset_products();
void end_products(LaneState& lane);   // the lane ends: fails if a product has not been waited for
void perform_some(LaneState& lane);   // products of the lane's warp, in the schedule that is random

// async_proxy.cpp
void reset_async_proxy();
void check_fenced(Lane& lane, const Site& site, u32 address, u32 bytes);  // before the async proxy reads

// async_copy.cpp
void end_copies(LaneState& lane, void* cell);  // those that the lane did not wait for are released()
void land_some(AsyncCopies& copies);

}  // namespace emulator
