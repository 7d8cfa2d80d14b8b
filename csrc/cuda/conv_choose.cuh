// From a plan to the kernel that was instantiated for it.
#pragma once

#include <type_traits>

#include "conv_product_ffma.cuh"
#include "heuristics.h"

namespace resnet_fused::cuda {

// Pass::kernel<Math, TileShape, VECTOR>() of what the plan and the problem ask for.
template <typename Pass, typename Math>
auto kernel_of_plan(const TilePlan& plan) {
  if (!plan.vector) {
    return Pass::template kernel<Math, Tile64x64, false>();
  }
  if constexpr (!std::is_same_v<Math, MathFfma>) {  // of which has_large_tiles says the same
    if (plan.tile == TileChoice::k128x128) {
      return Pass::template kernel<Math, Tile128x128, true>();
    }
    if (plan.tile == TileChoice::k128x64) {
      return Pass::template kernel<Math, Tile128x64, true>();
    }
  }
  return Pass::template kernel<Math, Tile64x64, true>();
}

template <typename Pass>
auto choose_kernel(const ConvProblem& problem, const TilePlan& plan) {
  switch (problem.dtype) {
    case DType::kFloat16:
      return kernel_of_plan<Pass, MathHalf>(plan);
    case DType::kBFloat16:
      return kernel_of_plan<Pass, MathBFloat16>(plan);
    default:
      return problem.allow_tf32 ? kernel_of_plan<Pass, MathTf32>(plan) : kernel_of_plan<Pass, MathFfma>(plan);
  }
}

}  // namespace resnet_fused::cuda
