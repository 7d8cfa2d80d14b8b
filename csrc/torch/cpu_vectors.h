// What batch norm does with vectors of channels behind a reduction, on the CPU.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <type_traits>

#include "../common/params.h"

namespace resnet_fused {

// function(pointer) with `array` as a pointer to its elements.
template <typename Function>
void with_elements(DType dtype, void* array, Function function) {
  switch (dtype) {
    case DType::kFloat64:
      return function(static_cast<double*>(array));
    case DType::kBFloat16:
      return function(static_cast<c10::BFloat16*>(array));
    case DType::kFloat16:
      return function(static_cast<c10::Half*>(array));
    default:
      return function(static_cast<float*>(array));
  }
}

// function(pointer) with `array` as a pointer to the accumulation type.
template <typename Function>
void with_acc(DType acc, const void* array, Function function) {
  return acc == DType::kFloat64 ? function(static_cast<const double*>(array))
                                : function(static_cast<const float*>(array));
}

inline void cpu_bn_backward_finalize(DType acc, const BackwardFinalizeParams& p) {
  with_acc(acc, p.sums, [&](const auto* sums) {
    using A = std::remove_cv_t<std::remove_pointer_t<decltype(sums)>>;
    A* means = static_cast<A*>(p.means);
    for (int64_t i = 0; i < 2 * p.channels; ++i) {
      means[i] = sums[i] / static_cast<double>(p.count);
    }
    auto put = [&](DType dtype, void* gradient, const A* row) {
      with_elements(dtype, gradient, [&](auto* elements) {
        for (int64_t c = 0; elements && c < p.channels; ++c) {
          elements[c] = row[c];
        }
      });
    };
    put(p.weight_dtype, p.dweight, sums + p.channels);
    put(p.bias_dtype, p.dbias, sums);
  });
}

inline void cpu_bn_update_running(DType acc, const UpdateRunningParams& p) {
  for (int i = 0; i < p.counters; ++i) {
    *p.counter[i] += 1;
  }
  for (int i = 0; i < p.norms; ++i) {
    const RunningStatistics& n = p.norm[i];
    with_acc(acc, n.stats, [&](const auto* stats) {
      double degrees = static_cast<double>(n.count - 1);
      // 16-bit elements are rounded from float.
      auto blend = [&](auto* running, const auto* batch, double divisor) {
        using T = std::remove_pointer_t<decltype(running)>;
        using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;
        for (int64_t c = 0; c < n.channels; ++c) {
          double before = static_cast<Wide>(running[c]);
          running[c] = static_cast<Wide>((1 - n.momentum) * before + n.momentum * (batch[c] / divisor));
        }
      };
      with_elements(n.mean_dtype, n.mean, [&](auto* mean) { blend(mean, stats, 1); });
      with_elements(n.var_dtype, n.var, [&](auto* var) { blend(var, stats + n.channels, degrees); });
    });
  }
}

}  // namespace resnet_fused
