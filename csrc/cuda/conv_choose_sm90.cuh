// From a plan to the kernel for Hopper's warpgroups that was instantiated for it.
#pragma once

#include "conv_product_sm90.cuh"
#include "heuristics.h"

namespace resnet_fused::cuda {

template <typename Pass, typename Math, typename TileShape>
auto sm90_kernel_of_chunks(bool long_chunks) {
  return long_chunks ? Pass::template kernel<Math, LongChunks<TileShape>, true>()
                     : Pass::template kernel<Math, TileShape, true>();
}

template <typename Pass, typename Math>
auto sm90_kernel_of_plan(const TilePlan& plan) {
  if constexpr (Pass::kHasFewRows) {
    if (plan.tile == TileChoice::k64x128) {
      return sm90_kernel_of_chunks<Pass, Math, Tile64x128>(plan.long_chunks);
    }
  }
  return plan.tile == TileChoice::k128x128 ? sm90_kernel_of_chunks<Pass, Math, Tile128x128>(plan.long_chunks)
                                           : sm90_kernel_of_chunks<Pass, Math, Tile128x64>(plan.long_chunks);
}

template <typename Pass>
auto choose_sm90_kernel(DType dtype, const TilePlan& plan) {
  return dtype == DType::kFloat16 ? sm90_kernel_of_plan<Pass, MathHalfSm90>(plan)
                                  : sm90_kernel_of_plan<Pass, MathBFloat16Sm90>(plan);
}

}  // namespace resnet_fused::cuda
