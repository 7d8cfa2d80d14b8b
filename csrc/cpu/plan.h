// How work is cut into chunks: a pure function of the problem and the thread count, so that partial
// sums, which are merged in chunk order, do not depend on scheduling.
#pragma once

#include <stdint.h>

namespace resnet_fused::cpu {

struct Plan {
  int64_t units;   // rows, planes or elements
  int64_t chunks;  // at most one per thread
};

// Chunks of at least kGrain elements, so that small tensors stay on one thread.
Plan plan_chunks(int64_t units, int64_t elements_per_unit, int threads);

// Chunk i works on the units [chunk_begin(plan, i), chunk_begin(plan, i + 1)).
int64_t chunk_begin(const Plan& plan, int64_t chunk);

}  // namespace resnet_fused::cpu
