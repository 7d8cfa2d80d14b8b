// Tasks over the threads, each on memory of its own.
#pragma once

#include <algorithm>
#include <atomic>

#include "kernels.h"
#include "parallel.h"

namespace resnet_fused::cpu {

inline int64_t workers_for(int64_t tasks) {
  return std::clamp<int64_t>(tasks, 1, max_threads());
}

// Tasks go to whichever worker is free, so their results may not depend on the worker.
template <typename Params>
void run_tasks(TaskFunction<Params> function, const Params& params, int64_t tasks) {
  std::atomic<int64_t> next{0};
  parallel_for(workers_for(tasks), [&](int64_t worker) {
    for (int64_t task = next++; task < tasks; task = next++) {
      function(params, worker, task);
    }
  });
}

}  // namespace resnet_fused::cpu
