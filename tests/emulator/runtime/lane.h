// What translated kernels are made of: a lane, the checks before it reaches memory, and what lanes do together.
#pragma once

#include "arithmetic.h"
#include "atomics.h"
#include "conversions.h"
#include "integers.h"
#include "narrow.h"
#include "types.h"

namespace emulator {

// One instruction of a kernel that can fail or is counted. The last fields are of its last access without an error:
// addresses in [begin, begin + last] are fine while the registry of allocations is as it was at `epoch`.
struct Site {
  const char* where;  // "conv.cu:12"
  const char* text;
  u64 begin = 0, last = 0, epoch = 0;
};

// The block that runs. Only one does at a time.
struct Block {
  u32 ctaid[3], ntid[3], nctaid[3];
  u8* shared;
  u32 shared_bytes, dynamic_shared_bytes;
};
extern Block block;

struct Lane {
  u32 tid[3];
  u32 laneid, warpid;
};

enum class Access { kRead, kWrite, kAtomic };

// Changes with every allocation, and is a number that no site has while accesses are counted.
extern u64 memory_epoch;

// Each returns where the `bytes` at an address are, or ends the launch with an error.
u8* check_global(Lane& lane, Site& site, u64 address, u32 bytes, Access access);
u8* check_shared(Lane& lane, Site& site, u32 address, u32 bytes, Access access);
u8* check_generic(Lane& lane, Site& site, u64 address, u32 bytes, Access access);
// A source of cp.async, whose alignment has been checked.
const u8* check_copied(Lane& lane, Site& site, u64 address, u32 bytes);
u8* check_local(Lane& lane, Site& site, const u8* begin, u64 size, u64 address, u32 bytes);

// Accesses until the schedule interrupts the lane: between reading a number and writing it back, for example.
extern u32 patience;
void interrupt(Lane& lane);
inline void count_access(Lane& lane) {
  if (__builtin_expect(--patience == 0, 0)) {
    interrupt(lane);
  }
}

// Sanitizers would take a site's cache for a variable of the program, so they get the calls only.
template <u32 bytes>
inline u8* global_memory(Lane& lane, Site& site, u64 address, Access access) {
#ifndef EMULATOR_SANITIZE
  count_access(lane);
  if (__builtin_expect(site.epoch == memory_epoch && address - site.begin <= site.last && address % bytes == 0, 1)) {
    return reinterpret_cast<u8*>(address);
  }
#endif
  return check_global(lane, site, address, bytes, access);
}

extern bool counting;

template <u32 bytes>
inline u8* shared_memory(Lane& lane, Site& site, u32 address, Access access) {
#ifndef EMULATOR_SANITIZE
  count_access(lane);
  if (__builtin_expect(!counting && u64(address) + bytes <= block.shared_bytes && address % bytes == 0, 1)) {
    return block.shared + address;
  }
#endif
  return check_shared(lane, site, address, bytes, access);
}

// isspacep
// Generic addresses of shared memory: more than a block can have, so that what is close behind is an error.
constexpr u64 kSharedWindow = u64(256) << 10;

bool is_shared(u64 address);
bool is_local(const Lane& lane, u64 address);

[[noreturn]] void fail(Lane& lane, const Site& site, const char* what);

// Loops call this once per iteration: one that waits for others lets them run, and one that does not end is an error.
extern u32 fuel;
void refuel(Lane& lane, const Site& site);
void count_back_edge(Lane& lane, const Site& site);
inline void back_edge(Lane& lane, const Site& site) {
#ifdef EMULATOR_SANITIZE
  count_back_edge(lane, site);  // not the program's memory
#else
  if (__builtin_expect(--fuel == 0, 0)) {
    refuel(lane, site);
  }
#endif
}

enum class Shuffle { kUp, kDown, kBfly, kIdx };
enum class Vote { kAll, kAny, kUni, kBallot };
enum class Redux { kAdd, kMin, kMax, kAnd, kOr, kXor };
enum class BarrierRed { kPopc, kAnd, kOr };

struct Shuffled {
  u32 value;
  bool in_range;
};
struct Matched {
  u32 lanes;
  bool all;
};

Shuffled shuffle(Lane& lane, Site& site, Shuffle mode, u32 value, u32 source, u32 clamp, u32 lanes);
u32 vote(Lane& lane, Site& site, Vote mode, bool value, u32 lanes);
Matched match(Lane& lane, Site& site, bool all, u64 value, u32 lanes);
u32 redux(Lane& lane, Site& site, Redux operation, bool is_signed, u32 value, u32 lanes);
void warp_barrier(Lane& lane, Site& site, u32 lanes);

// threads == 0: all of the block.
void barrier(Lane& lane, Site& site, bool aligned, u32 id, u32 threads);
void barrier_arrive(Lane& lane, Site& site, bool aligned, u32 id, u32 threads);
u32 barrier_reduce(Lane& lane, Site& site, bool aligned, BarrierRed operation, bool value, u32 id, u32 threads);
void memory_fence(Lane& lane);
void give_way(Lane& lane);  // nanosleep

struct Matrices {
  u32 row[4];
};
Matrices load_matrices(Lane& lane, Site& site, u32 count, bool transposed, u32 address);

// Registers of one lane: a, b as the instruction has them, c and d in float.
struct MmaOperands {
  u32 a[4], b[2];
  float c[4];
};
struct MmaResult {
  float d[4];
};
enum class MmaType { kF16, kBF16, kTF32 };
MmaResult multiply_matrices(Lane& lane, Site& site, MmaType type, u32 k, const MmaOperands& operands);

// wgmma.mma_async: a, b are descriptors of shared memory; d points to this lane's n / 2 registers, which are poisoned
// until the wait.
struct WarpgroupShape {
  MmaType type;
  u32 n, k;
  bool mn_major_a, mn_major_b;
};
void issue_product(Lane& lane, Site& site, const WarpgroupShape& shape, u64 a, u64 b, bool add, float* const* d);
void fence_products(Lane& lane, Site& site);
void commit_products(Lane& lane, Site& site);
void wait_for_products(Lane& lane, Site& site, u32 newest_groups_not_waited_for);

// Kernels with wgmma tell of their writes to shared memory, which fence.proxy.async must follow. Returns p.
u8* written(Lane& lane, u8* p, u32 bytes);
void copied(Lane& lane, u32 address, u32 bytes);  // by cp.async
void fence_async_proxy(Lane& lane);

void copy_async(Lane& lane, Site& site, u32 to, u64 from, u32 bytes, u32 source_bytes);
void copy_commit(Lane& lane);
void copy_wait(Lane& lane, u32 newest_groups_not_waited_for);
void copy_wait_all(Lane& lane);

using Function = void (*)(Lane& lane, const u8* parameters);

struct ParameterLayout {
  u32 offset, size;
};

// A kernel, as translated.
struct Entry {
  const char* name;
  const char* hash;  // of its instructions
  Function function;
  const ParameterLayout* parameters;
  u32 parameter_count, parameter_bytes;
  u32 static_shared_bytes;  // rounded up to where dynamic shared memory begins
  u32 max_threads;          // __launch_bounds__, or 0
  const char* source;       // the .cu file
};

// A __device__ or __constant__ variable.
struct ModuleVariable {
  const char* name;
  u8* address;
  u64 size;
};

struct Registration {
  Registration(const Entry* entries, u32 entry_count, const ModuleVariable* variables, u32 variable_count);
};

}  // namespace emulator
