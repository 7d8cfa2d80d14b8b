// What the drivers share: running a kernel over the chunks of a plan, and the reductions' scratch.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

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

// Elements of an acc-typed array.
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
  // Sums [rows, C] over the chunks, whose doubles hold them; rows after the first are multiplied by an affine's invstd.
  void put_sums(DType dtype, int64_t chunks, int rows, int64_t channels, const void* const* affines, void* sums) const {
    for (int row = 0; row < rows; ++row) {
      for (int64_t c = 0; c < channels; ++c) {
        double total = 0;
        for (int64_t i = 0; i < chunks; ++i) {
          total += doubles(i)[row * scratch_.slots + c];
        }
        if (row > 0) {
          total *= get_acc(dtype, affines[row - 1], 3 * channels + c);
        }
        put_acc(dtype, sums, row * channels + c, total);
      }
    }
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

// invstd * means[1], the factor of x - mean in batch norm's backward; room for either acc type.
inline std::vector<double> backward_slope(DType dtype, const void* affine, const void* means, int64_t channels) {
  std::vector<double> slope(channels);
  for (int64_t c = 0; c < channels; ++c) {
    put_acc(dtype, slope.data(), c, get_acc(dtype, affine, 3 * channels + c) * get_acc(dtype, means, channels + c));
  }
  return slope;
}

}  // namespace resnet_fused::cpu
