// What the drivers share: running a kernel over the chunks of a plan, and the reductions' scratch.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "kernels.h"
#include "parallel.h"
#include "plan.h"

namespace resnet_fused::cpu {

inline Plan plan_shape(const Shape& s) {
  return s.channels_last ? plan_chunks(s.images * s.pixels, s.channels, max_threads())
                         : plan_chunks(s.images * s.channels, s.pixels, max_threads());
}

template <typename Params>
void run_chunks(const Plan& plan, ChunkFunction<Params> function, const Params& params) {
  if (plan.units == 0) {
    return;
  }
  parallel_for(plan.chunks, [&](int64_t i) {
    function(params, i, chunk_begin(plan, i), chunk_begin(plan, i + 1));
  });
}

inline int64_t acc_size(DType dtype) {
  return dtype == DType::kFloat64 ? sizeof(double) : sizeof(float);
}

// Zeroed, so that a chunk that never ran counts as an empty one.
class ScratchMemory {
 public:
  ScratchMemory(int64_t chunks, int64_t channels, int64_t bytes_per_slot) {
    constexpr int64_t kLine = 64;  // chunks do not share cache lines, and hold a vector of lanes
    scratch_.slots = (channels + kLine - 1) / kLine * kLine;
    scratch_.slots += kLine / 2;  // arrays a multiple of 4 KiB apart would share the cache's sets
    scratch_.stride = (scratch_.slots * bytes_per_slot + kLine - 1) / kLine * kLine;
    memory_.reset(static_cast<char*>(std::aligned_alloc(kLine, chunks * scratch_.stride)));
    if (!memory_) {
      throw std::bad_alloc();
    }
    scratch_.data = memory_.get();
    __builtin_memset(scratch_.data, 0, chunks * scratch_.stride);
  }
  const Scratch& get() const {
    return scratch_;
  }
  // The doubles at the start of a chunk's scratch.
  const double* doubles(int64_t chunk) const {
    return reinterpret_cast<const double*>(scratch_.data + chunk * scratch_.stride);
  }

 private:
  struct Free {
    void operator()(char* p) const {
      std::free(p);
    }
  };
  std::unique_ptr<char, Free> memory_;
  Scratch scratch_;
};

// Writes to an acc-typed array.
inline void put_acc(DType dtype, void* array, int64_t i, double value) {
  if (dtype == DType::kFloat64) {
    static_cast<double*>(array)[i] = value;
  } else {
    static_cast<float*>(array)[i] = static_cast<float>(value);
  }
}
inline double get_acc(DType dtype, const void* array, int64_t i) {
  return dtype == DType::kFloat64 ? static_cast<const double*>(array)[i] : static_cast<const float*>(array)[i];
}

}  // namespace resnet_fused::cpu
