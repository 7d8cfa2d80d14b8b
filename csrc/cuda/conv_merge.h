// The second stage of the convolutions' reductions: what their blocks left in the workspace, added in a fixed order.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "../common/types.h"

namespace resnet_fused::cuda {

// A tile's mean is rounded, and where it is large against the deviation that matters: so the sum of the deviations from
// the rounded mean is kept too, which would be 0, and the sum of their squares.
constexpr int kStatisticsRows = 3;

struct ConvStatisticsParams {
  const float* partials;  // [tiles][kStatisticsRows][channels], of tile_pixels each but for the last
  int tiles, channels;
  int tile_pixels, pixels;
  float* stats;           // [2][channels]
};

struct ConvSumsParams {
  const float* partials;  // [tiles][2][channels]
  int tiles, channels;
  const float* invstd;    // [channels], times which goes the second sum
  float* sums;            // [2][channels]
};

struct ConvSplitsParams {
  const float* partials;  // [splits][elements]
  int splits;
  int64_t elements;
  DType dtype;
  void* result;           // [elements]
};

void launch_conv_statistics(const ConvStatisticsParams& params, cudaStream_t stream);
void launch_conv_sums(const ConvSumsParams& params, cudaStream_t stream);
void launch_conv_splits(const ConvSplitsParams& params, cudaStream_t stream);

}  // namespace resnet_fused::cuda
