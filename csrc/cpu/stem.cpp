#include "stem.h"

#include <vector>

#include "isa.h"
#include "launch.h"

namespace resnet_fused::cpu {
namespace {

// Units are rows of `height` per image, or planes.
Plan plan_stem(const StemShape& s, int64_t height, int64_t width) {
  return s.channels_last ? plan_chunks(s.images * height, width * s.channels, max_threads())
                         : plan_chunks(s.images * s.channels, height * width, max_threads());
}

}  // namespace

void stem_pool(DType dtype, const StemPoolParams& params) {
  const StemShape& s = params.shape;
  run_chunks(plan_stem(s, s.out_height, s.out_width),
             active_kernels().stem_pool[static_cast<int>(dtype)], params);
}

void stem_pool_backward_reduce(DType dtype, StemPoolBackwardParams params, void* sums) {
  const StemShape& s = params.shape;
  Plan plan = plan_stem(s, s.height, s.width);
  ScratchMemory scratch(plan.chunks, s.channels, 2 * (sizeof(double) + acc_size(dtype)));
  params.scratch = scratch.get();
  params.draw = nullptr;
  run_chunks(plan, active_kernels().stem_pool_backward[static_cast<int>(dtype)], params);
  for (int row = 0; row < (params.x ? 2 : 1); ++row) {
    for (int64_t c = 0; c < s.channels; ++c) {
      double total = 0;
      for (int64_t i = 0; i < plan.chunks; ++i) {
        total += scratch.doubles(i)[row * params.scratch.slots + c];
      }
      if (row > 0) {
        total *= get_acc(dtype, params.affine, 3 * s.channels + c);
      }
      put_acc(dtype, sums, row * s.channels + c, total);
    }
  }
}

void stem_pool_backward_apply(DType dtype, StemPoolBackwardParams params, const void* means) {
  const StemShape& s = params.shape;
  std::vector<double> slope(s.channels);  // room for either acc type
  for (int64_t c = 0; params.x && c < s.channels; ++c) {
    put_acc(dtype, slope.data(), c,
            get_acc(dtype, params.affine, 3 * s.channels + c) * get_acc(dtype, means, s.channels + c));
  }
  params.mean_g = means;
  params.slope = slope.data();
  run_chunks(plan_stem(s, s.height, s.width),
             active_kernels().stem_pool_backward[static_cast<int>(dtype)], params);
}

}  // namespace resnet_fused::cpu
