// dw = the sum over output pixels of draw * input, as the product [K][pixels] x [pixels][R S C], whose pixels are split
// over blocks.
#pragma once

#include "conv_chunks.cuh"
#include "conv_epilogue.cuh"
#include "conv_mainloop.cuh"

namespace resnet_fused::cuda {

struct ConvWgradKernelParams {
  ConvWgradParams conv;
  TilePlan plan;
  float* partials;    // [splits][K][R][S][C / groups]; or null, and then the only split stores dw
  bool vector_store;  // dw in pieces of 16 bytes
  Window draw_window, input_window;
  bool input_linear;
};

// Each pixel of draw, by itself.
inline Window pixel_window(const ConvShape& s) {
  return {s.P, s.Q, s.K, Divisor(s.P), Divisor(s.Q), {1, 1}, {1, 1}, {0, 0}, {1, 1}};
}

template <typename T, typename TileShape>
__device__ __forceinline__ void finish_wgrad(const StagedTile<T, TileShape>& tile, const ConvWgradKernelParams& p,
                                             int64_t first, int rows, int row_elements, int split, int count,
                                             bool vector) {
  const ConvShape& shape = p.conv.problem.shape;
#pragma unroll 2
  for (int i = 0; i < tile.kRows; ++i) {
    if (tile.row(i) >= rows) {
      break;
    }
    float v[kPiece<T>];
    tile.read(v, i);
    int64_t offset = first + static_cast<int64_t>(tile.row(i)) * row_elements;
    if (p.partials) {
      store_channels(p.partials + split * (static_cast<int64_t>(shape.K) * row_elements) + offset, v, count, vector);
    } else {
      store_elements(static_cast<T*>(p.conv.dw) + offset, v, count, vector);
    }
  }
}

template <typename Math, typename TileShape, bool VECTOR>
__global__ void __launch_bounds__(kTileThreads, kDrawMinBlocks<Math, TileShape>)
    conv_wgrad_kernel(const __grid_constant__ ConvWgradKernelParams p) {
  using T = typename Math::Element;
  constexpr int kChunk = kTileK<T, TileShape>;
  using Draw = PixelRowsOfTile<T, TileShape, TileShape::kTileM, DrawOfTile<T, TileShape>, VECTOR>;
  using Input = PixelRowsOfTile<T, TileShape, TileShape::kTileN, ActivationSource<T>, VECTOR>;
  const ConvShape& shape = p.conv.problem.shape;
  BlockTile block = block_tile(p.plan, blockIdx.x);
  int split = block.group / shape.groups, group = block.group - split * shape.groups;
  int first_filter = block.row_tile * TileShape::kTileM, first_column = block.column_tile * TileShape::kTileN;
  int group_filters = shape.K / shape.groups, row_elements = shape.R * shape.S * (shape.C / shape.groups);
  int pixels = shape.N * shape.P * shape.Q, first = split * p.plan.split_chunks * kChunk;
  int end = pixels - first < p.plan.split_chunks * kChunk ? pixels : first + p.plan.split_chunks * kChunk;

  Product<Math, TileShape, typename Draw::Layout, typename Input::Layout> product;
  Draw draw(DrawOfTile<T, TileShape>(p.conv.draw, shape.K), p.draw_window, true, shape.groups, group, first, end,
            first_filter);
  Input input(ActivationSource<T>(p.conv.input, shape.C), p.input_window, p.input_linear, shape.groups, group, first,
              end, first_column);
  multiply_chunks(product, draw, input, p.plan.split_chunks, p.plan);

  StagedTile<T, TileShape> tile(shared_memory, product);
  int column = first_column + tile.column(), count = row_elements - column;
  int64_t filter = static_cast<int64_t>(group) * group_filters + first_filter;
  finish_wgrad<T>(tile, p, filter * row_elements + column, group_filters - first_filter, row_elements, split, count,
                  p.vector_store && count > 0);
}

struct Wgrad {
  static constexpr bool kHasFewRows = true;  // so that tiles of 64 rows are worth having for warpgroups

  template <typename Math, typename TileShape, bool VECTOR>
  static auto kernel() {
    return conv_wgrad_kernel<Math, TileShape, VECTOR>;
  }
};

// Of conv_wgrad_sm90.cu.
using ConvWgradKernel = void (*)(ConvWgradKernelParams);
ConvWgradKernel conv_wgrad_sm90_kernel(DType dtype, const TilePlan& plan);

}  // namespace resnet_fused::cuda
