#include "bn.h"

#include <cmath>
#include <vector>

#include "isa.h"
#include "launch.h"

namespace resnet_fused::cpu {
namespace {

int index(DType dtype) {
  return static_cast<int>(dtype);
}

struct Moments {
  double count = 0, mean = 0, m2 = 0;
};

// Chan, Golub, LeVeque 1979: the moments of the union.
Moments merge(const Moments& a, const Moments& b) {
  if (a.count == 0 || b.count == 0) {
    return a.count == 0 ? b : a;
  }
  double count = a.count + b.count, delta = b.mean - a.mean;
  return {count, (a.count * a.mean + b.count * b.mean) / count,
          a.m2 + b.m2 + delta * delta * (a.count * b.count / count)};
}

}  // namespace

void bn_statistics(DType dtype, const StatisticsParams& params) {
  Plan plan = plan_shape(params.shape);
  int64_t channels = params.shape.channels;
  ScratchMemory scratch(plan.chunks, channels, 3 * (sizeof(double) + acc_size(dtype)));
  run_chunks(plan, active_kernels().statistics[index(dtype)], StatisticsTask{params, scratch.get()});
  int64_t slots = scratch.get().slots;
  for (int64_t c = 0; c < channels; ++c) {
    Moments all;
    for (int64_t i = 0; i < plan.chunks; ++i) {
      const double* chunk = scratch.doubles(i);
      all = merge(all, {chunk[c], chunk[slots + c], chunk[2 * slots + c]});
    }
    put_acc(dtype, params.stats, c, all.mean);
    put_acc(dtype, params.stats, channels + c, all.m2);
  }
}

void bn_finalize(DType acc, const FinalizeParams& p) {
  int64_t channels = p.channels;
  for (int64_t c = 0; c < channels; ++c) {
    double variance = get_acc(acc, p.m2, c) / static_cast<double>(p.count);
    double invstd = 1 / std::sqrt(variance + p.eps);
    put_acc(acc, p.affine, c, get_acc(acc, p.mean, c));
    put_acc(acc, p.affine, channels + c, p.weight ? get_acc(acc, p.weight, c) * invstd : invstd);
    put_acc(acc, p.affine, 2 * channels + c, p.bias ? get_acc(acc, p.bias, c) : 0);
    put_acc(acc, p.affine, 3 * channels + c, invstd);
  }
}

void bn_apply(DType dtype, const ApplyParams& params) {
  run_chunks(plan_shape(params.shape), active_kernels().apply[index(dtype)], params);
}

void bn_backward_reduce(DType dtype, const BackwardReduceParams& params) {
  Plan plan = plan_shape(params.shape);
  ScratchMemory scratch(plan.chunks, params.shape.channels, 3 * (sizeof(double) + acc_size(dtype)));
  run_chunks(plan, active_kernels().backward_reduce[index(dtype)], BackwardReduceTask{params, scratch.get()});
  const void* affines[2] = {params.affine, params.affine2};
  scratch.put_sums(dtype, plan.chunks, params.x2 ? 3 : params.x ? 2 : 1, params.shape.channels, affines, params.sums);
}

void bn_backward_apply(DType dtype, const BackwardApplyParams& params) {
  std::vector<double> slope = backward_slope(dtype, params.affine, params.means, params.shape.channels);
  run_chunks(plan_shape(params.shape), active_kernels().backward_apply[index(dtype)],
             BackwardApplyTask{params, params.means, slope.data()});
}

void mask_add(DType dtype, const MaskAddParams& params) {
  run_chunks(plan_chunks(params.elements, 1, max_threads()), active_kernels().mask_add[index(dtype)], params);
}

}  // namespace resnet_fused::cpu
