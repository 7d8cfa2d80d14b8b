#include "plan.h"

#include <algorithm>

namespace resnet_fused::cpu {

constexpr int64_t kGrain = 32768;

Plan plan_chunks(int64_t units, int64_t elements_per_unit, int threads) {
  int64_t elements = units * std::max<int64_t>(elements_per_unit, 1);
  int64_t chunks = std::min<int64_t>({threads, units, elements / kGrain});
  return {units, std::max<int64_t>(chunks, 1)};
}

int64_t chunk_begin(const Plan& plan, int64_t chunk) {
  int64_t each = plan.units / plan.chunks, extra = plan.units % plan.chunks;
  return chunk * each + std::min(chunk, extra);
}

}  // namespace resnet_fused::cpu
