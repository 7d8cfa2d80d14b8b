// From a plan to the kernel for Hopper's warpgroups that was instantiated for it.
#pragma once

#include "conv_product_sm90.cuh"
#include "heuristics.h"

namespace resnet_fused::cuda {

template <typename Pass, typename Math>
auto sm90_kernel_of_tile(TileChoice tile) {
  if constexpr (Pass::kHasFewRows) {
    if (tile == TileChoice::k64x128) {
      return Pass::template kernel<Math, Tile64x128, true>();
    }
  }
  return tile == TileChoice::k128x128 ? Pass::template kernel<Math, Tile128x128, true>()
                                      : Pass::template kernel<Math, Tile128x64, true>();
}

template <typename Pass>
auto choose_sm90_kernel(DType dtype, TileChoice tile) {
  return dtype == DType::kFloat16 ? sm90_kernel_of_tile<Pass, MathHalfSm90>(tile)
                                  : sm90_kernel_of_tile<Pass, MathBFloat16Sm90>(tile);
}

}  // namespace resnet_fused::cuda
