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

void bn_statistics(DType dtype, StatisticsParams params, void* stats) {
  Plan plan = plan_shape(params.shape);
  int64_t channels = params.shape.channels;
  ScratchMemory scratch(plan.chunks, channels, 3 * (sizeof(double) + acc_size(dtype)));
  params.scratch = scratch.get();
  run_chunks(plan, active_kernels().statistics[index(dtype)], params);
  int64_t slots = params.scratch.slots;
  for (int64_t c = 0; c < channels; ++c) {
    Moments all;
    for (int64_t i = 0; i < plan.chunks; ++i) {
      const double* chunk = scratch.doubles(i);
      all = merge(all, {chunk[c], chunk[slots + c], chunk[2 * slots + c]});
    }
    put_acc(dtype, stats, c, all.mean);
    put_acc(dtype, stats, channels + c, all.m2);
  }
}

void bn_finalize(DType dtype, const void* stats, int64_t count, const void* weight, const void* bias,
                 double eps, int64_t channels, void* affine) {
  for (int64_t c = 0; c < channels; ++c) {
    double variance = get_acc(dtype, stats, channels + c) / static_cast<double>(count);
    double invstd = 1 / std::sqrt(variance + eps);
    put_acc(dtype, affine, c, get_acc(dtype, stats, c));
    put_acc(dtype, affine, channels + c, weight ? get_acc(dtype, weight, c) * invstd : invstd);
    put_acc(dtype, affine, 2 * channels + c, bias ? get_acc(dtype, bias, c) : 0);
    put_acc(dtype, affine, 3 * channels + c, invstd);
  }
}

void bn_apply(DType dtype, const ApplyParams& params) {
  run_chunks(plan_shape(params.shape), active_kernels().apply[index(dtype)], params);
}

void bn_backward_reduce(DType dtype, BackwardReduceParams params, void* sums) {
  Plan plan = plan_shape(params.shape);
  int64_t channels = params.shape.channels;
  ScratchMemory scratch(plan.chunks, channels, 3 * (sizeof(double) + acc_size(dtype)));
  params.scratch = scratch.get();
  run_chunks(plan, active_kernels().backward_reduce[index(dtype)], params);
  int64_t slots = params.scratch.slots;
  const void* affines[2] = {params.affine, params.affine2};
  int rows = params.x2 ? 3 : params.x ? 2 : 1;
  for (int row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < channels; ++c) {
      double total = 0;
      for (int64_t i = 0; i < plan.chunks; ++i) {
        total += scratch.doubles(i)[row * slots + c];
      }
      if (row > 0) {
        total *= get_acc(dtype, affines[row - 1], 3 * channels + c);
      }
      put_acc(dtype, sums, row * channels + c, total);
    }
  }
}

void bn_backward_apply(DType dtype, BackwardApplyParams params, const void* means) {
  int64_t channels = params.shape.channels;
  std::vector<double> slope(channels);  // room for either acc type
  for (int64_t c = 0; c < channels; ++c) {
    put_acc(dtype, slope.data(), c,
            get_acc(dtype, params.affine, 3 * channels + c) * get_acc(dtype, means, channels + c));
  }
  params.mean_g = means;
  params.slope = slope.data();
  run_chunks(plan_shape(params.shape), active_kernels().backward_apply[index(dtype)], params);
}

void mask_add(DType dtype, const MaskAddParams& params, int64_t elements) {
  run_chunks(plan_chunks(elements, 1, max_threads()), active_kernels().mask_add[index(dtype)], params);
}

}  // namespace resnet_fused::cpu
