// The one file that needs OpenMP: at::parallel_for is inlined here, and without -fopenmp it would
// silently run on one thread.
#include "../cpu/parallel.h"

#include <ATen/Parallel.h>

#if !defined(_OPENMP) && AT_PARALLEL_OPENMP
#error "build with -fopenmp, as torch's own parallel_for is"
#endif

namespace resnet_fused::cpu {

int max_threads() {
  return at::get_num_threads();
}

void parallel_for(int64_t count, void (*body)(void* context, int64_t index), void* context) {
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      body(context, i);
    }
  });
}

}  // namespace resnet_fused::cpu
