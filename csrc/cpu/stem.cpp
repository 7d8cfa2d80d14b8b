#include "stem.h"

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

void stem_pool_backward_reduce(DType dtype, const StemPoolBackwardParams& params) {
  const StemShape& s = params.shape;
  Plan plan = plan_stem(s, s.height, s.width);
  ScratchMemory scratch(plan.chunks, s.channels, 2 * (sizeof(double) + acc_size(dtype)));
  StemPoolBackwardTask task{params, nullptr, nullptr, scratch.get()};
  task.draw = nullptr;
  run_chunks(plan, active_kernels().stem_pool_backward[static_cast<int>(dtype)], task);
  scratch.put_sums(dtype, plan.chunks, params.x ? 2 : 1, s.channels, &params.affine, params.sums);
}

void stem_pool_backward_apply(DType dtype, const StemPoolBackwardParams& params) {
  const StemShape& s = params.shape;
  std::vector<double> slope;
  if (params.x) {
    slope = backward_slope(dtype, params.affine, params.means, s.channels);
  }
  run_chunks(plan_stem(s, s.height, s.width), active_kernels().stem_pool_backward[static_cast<int>(dtype)],
             StemPoolBackwardTask{params, params.means, slope.data(), {}});
}

}  // namespace resnet_fused::cpu
