// The table of kernels that every instruction set fills in. A kernel works serially on the
// units [begin, end) of one chunk: rows (pixels) when channels are last, else planes.
#pragma once

#include "conv_params.h"
#include "params.h"

namespace resnet_fused::cpu {

template <typename Params>
using ChunkFunction = void (*)(const Params& params, int64_t chunk, int64_t begin, int64_t end);

// One task of a convolution, on the worker's own memory.
template <typename Params>
using TaskFunction = void (*)(const Params& params, int64_t worker, int64_t task);

struct Kernels {
  ChunkFunction<StatisticsTask> statistics[kDTypes];
  ChunkFunction<ApplyParams> apply[kDTypes];
  ChunkFunction<BackwardReduceTask> backward_reduce[kDTypes];
  ChunkFunction<BackwardApplyTask> backward_apply[kDTypes];
  ChunkFunction<MaskAddParams> mask_add[kDTypes];  // units: elements
  ChunkFunction<StemPoolParams> stem_pool[kDTypes];  // units: rows of y, or planes
  ChunkFunction<StemPoolBackwardTask> stem_pool_backward[kDTypes];  // rows of x, or planes

  float (*multiply_add)(int64_t count);  // chained so that the units are always busy; for measuring their peak
  int64_t multiply_add_operations;       // of one count
  int64_t micro_rows, micro_columns[kDTypes];  // of the micro-kernel's tile
  TaskFunction<PackWeightsParams> pack_weights[kDTypes];  // tasks: column tiles
  TaskFunction<UnpackWeightsParams> unpack_weights[kDTypes];
  TaskFunction<DirectParams> conv_direct[kDTypes];  // tasks: strips x splits
  TaskFunction<WgradParams> conv_wgrad[kDTypes];    // one for each worker
  TaskFunction<DepthwiseParams> conv_depthwise[kDTypes];        // strips x splits
  TaskFunction<DepthwiseWgradParams> depthwise_wgrad[kDTypes];  // parts x splits

  // Winograd: the weights' column tiles; whole blocks; or by all workers a block's tile rows, then its
  // column tiles. For gradients of weights: one for each worker; or tile rows, then blocks of channels x column tiles.
  TaskFunction<WinogradParams> winograd_weights[kDTypes], winograd_block[kDTypes], winograd_input[kDTypes],
      winograd_output[kDTypes];
  TaskFunction<WinogradWgradParams> winograd_wgrad_blocks[kDTypes], winograd_wgrad_input[kDTypes],
      winograd_wgrad_output[kDTypes];
};

namespace portable {
extern const Kernels kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

}  // namespace resnet_fused::cpu
