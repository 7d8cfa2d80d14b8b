// What batch norm does with vectors of channels behind a reduction, all of it in one launch: a launch takes longer.
#pragma once

#include "../common/params.h"
#include "element.cuh"
#include "sweep.h"

namespace resnet_fused::cuda {

// Elements of vectors whose dtype is known when running only. 16-bit ones are rounded from float.
__device__ inline double load_element(DType dtype, const void* p, int64_t i) {
  switch (dtype) {
    case DType::kFloat64:
      return static_cast<const double*>(p)[i];
    case DType::kBFloat16:
      return to_acc(static_cast<const __nv_bfloat16*>(p)[i]);
    case DType::kFloat16:
      return to_acc(static_cast<const __half*>(p)[i]);
    default:
      return static_cast<const float*>(p)[i];
  }
}

__device__ inline void store_element(DType dtype, void* p, int64_t i, double value) {
  switch (dtype) {
    case DType::kFloat64:
      static_cast<double*>(p)[i] = value;
      break;
    case DType::kBFloat16:
      static_cast<__nv_bfloat16*>(p)[i] = from_acc<__nv_bfloat16>(static_cast<float>(value));
      break;
    case DType::kFloat16:
      static_cast<__half*>(p)[i] = from_acc<__half>(static_cast<float>(value));
      break;
    default:
      static_cast<float*>(p)[i] = static_cast<float>(value);
  }
}

template <typename A>
__global__ void __launch_bounds__(kThreads, 2) bn_backward_finalize_kernel(BackwardFinalizeParams p) {
  int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= p.channels) {
    return;
  }
  const A* sums = static_cast<const A*>(p.sums);
  A* means = static_cast<A*>(p.means);
  double g = sums[c], gx = sums[p.channels + c], count = static_cast<double>(p.count);
  means[c] = static_cast<A>(g / count);
  means[p.channels + c] = static_cast<A>(gx / count);
  if (p.dweight) {
    store_element(p.weight_dtype, p.dweight, c, gx);
  }
  if (p.dbias) {
    store_element(p.bias_dtype, p.dbias, c, g);
  }
}

// A block for each batch norm, or counter.
template <typename A>
__global__ void __launch_bounds__(kThreads, 2) bn_update_running_kernel(UpdateRunningParams p) {
  int i = blockIdx.x;
  if (i < p.counters && threadIdx.x == 0) {
    *p.counter[i] += 1;
  }
  if (i >= p.norms) {
    return;
  }
  const RunningStatistics& n = p.norm[i];
  const A* stats = static_cast<const A*>(n.stats);
  double kept = 1 - n.momentum, degrees = static_cast<double>(n.count - 1);
  for (int64_t c = threadIdx.x; c < n.channels; c += kThreads) {
    double mean = stats[c], var = stats[n.channels + c] / degrees;
    store_element(n.mean_dtype, n.mean, c, kept * load_element(n.mean_dtype, n.mean, c) + n.momentum * mean);
    store_element(n.var_dtype, n.var, c, kept * load_element(n.var_dtype, n.var, c) + n.momentum * var);
  }
}

}  // namespace resnet_fused::cuda
