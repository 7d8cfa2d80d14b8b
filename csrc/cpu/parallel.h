// Threads, declared here without torch and implemented by it (csrc/torch/parallel.cpp).
#pragma once

#include <stdint.h>

namespace resnet_fused::cpu {

// How many threads a parallel region may use (torch.get_num_threads()).
int max_threads();

// body(context, i) for i in [0, count), in any order on any thread; returns when all are done.
void parallel_for(int64_t count, void (*body)(void* context, int64_t index), void* context);

template <typename F>
void parallel_for(int64_t count, F&& f) {
  parallel_for(count, [](void* context, int64_t i) { (*static_cast<F*>(context))(i); }, &f);
}

}  // namespace resnet_fused::cpu
