// y = conv([relu] z(x), w) as the product [pixels][R S C] x [R S C][K], with the epilogue of what is asked for.
#pragma once

#include "conv_chunks.cuh"
#include "conv_epilogue.cuh"
#include "conv_mainloop.cuh"
#include "conv_merge.h"

namespace resnet_fused::cuda {

struct ConvFpropKernelParams {
  ConvFpropParams conv;
  TilePlan plan;
  float* partials;    // [row tiles][kStatisticsRows][K], see conv_merge.h; or null
  bool vector_store;  // results and residuals in pieces of 16 bytes
  Window window;
  TapSteps steps;
};

// What the sums of a column's squares are relative to, given a value of the column; not infinity, less which is NaN.
template <typename T>
__device__ __forceinline__ float pivot_of(float v) {
  v = rounded<T>(v);
  return v - v == 0.0f ? v : 0.0f;
}

// Sums of what is stored, of a thread's columns and rows.
template <typename T>
struct Moments {
  float pivot[kPiece<T>], sum[kPiece<T>], square[kPiece<T>];
};

// Stores the tile's rows, and adds them up. WHOLE: there is all of the tile, so that nothing is asked for each row.
template <bool WHOLE, typename T, typename TileShape>
__device__ __forceinline__ void store_rows(const StagedTile<T, TileShape>& tile, T* y, int K, int rows,
                                           const OutputColumns& columns, Moments<T>& moments) {
  float v[kPiece<T>];
  T* to = y + static_cast<int64_t>(tile.row(0)) * K;
#pragma unroll 4
  for (int i = 0; i < tile.kRows; ++i, to += tile.kRowStep * K) {
    if (WHOLE || tile.row(i) < rows) {
      tile.read(v, i);
      store_rounded(to, v, columns.count, WHOLE || columns.vector);
#pragma unroll
      for (int e = 0; e < kPiece<T>; ++e) {
        float deviation = v[e] - moments.pivot[e];
        moments.sum[e] += deviation;
        moments.square[e] = fmaf(deviation, deviation, moments.square[e]);
      }
    }
  }
}

// y is stored as it is, and for stats sums of what is stored, less a pivot for each column so that the sums of squares
// do not cancel: the tile's first row, of which an outlier costs no more than the accuracy of a sum of kTileM terms.
template <typename T, typename TileShape>
__device__ __forceinline__ void finish_plain(const StagedTile<T, TileShape>& tile, const ConvFpropKernelParams& p,
                                             int row_tile, int rows, const OutputColumns& columns) {
  int K = p.conv.problem.shape.K;
  T* y = static_cast<T*>(p.conv.y) + static_cast<int64_t>(row_tile) * TileShape::kTileM * K + columns.channel;
  Moments<T> moments{};
  tile.read_row(moments.pivot, 0);
#pragma unroll
  for (int e = 0; e < kPiece<T>; ++e) {
    moments.pivot[e] = pivot_of<T>(moments.pivot[e]);
  }
  if (rows == TileShape::kTileM && p.vector_store && columns.first_channel + TileShape::kTileN <= columns.end_channel) {
    store_rows<true>(tile, y, K, rows, columns, moments);
  } else {
    store_rows<false>(tile, y, K, rows, columns, moments);
  }
  if (!p.partials) {
    return;
  }
  ColumnSums totals = tile.sum_columns(moments.sum, moments.square);
  if (int channel = columns.first_channel + threadIdx.x; totals.there && channel < columns.end_channel) {
    float* partial = p.partials + static_cast<int64_t>(row_tile) * kStatisticsRows * K + channel;
    partial[0] = pivot_of<T>(tile.staged[threadIdx.x]);
    partial[K] = totals.first;
    partial[2 * K] = totals.second;
  }
}

// y = [relu](z(conv) + residual).
template <typename T, typename TileShape>
__device__ __forceinline__ void finish_affine(const StagedTile<T, TileShape>& tile, const ConvFpropKernelParams& p,
                                              int row_tile, int rows, const OutputColumns& columns) {
  const ConvFpropParams& conv = p.conv;
  int K = conv.problem.shape.K;
  int64_t first = static_cast<int64_t>(row_tile) * TileShape::kTileM * K + columns.channel;
  AffineColumns<kPiece<T>> affine(conv.epilogue, K, columns), residual_affine(conv.residual_affine, K, columns);
#pragma unroll 2
  for (int i = 0; i < tile.kRows; ++i) {
    if (tile.row(i) >= rows) {
      break;
    }
    int64_t offset = first + static_cast<int64_t>(tile.row(i)) * K;
    float v[kPiece<T>], residual[kPiece<T>] = {};
    tile.read(v, i);
    if (conv.residual) {
      load_elements(residual, static_cast<const T*>(conv.residual) + offset, columns.count, columns.vector);
    }
#pragma unroll
    for (int e = 0; e < kPiece<T>; ++e) {
      float r = conv.residual_affine ? residual_affine.z(residual[e], e) : residual[e];
      float z = affine.z(v[e], e) + r;
      v[e] = conv.relu ? relu_of(z) : z;
    }
    store_elements(static_cast<T*>(conv.y) + offset, v, columns.count, columns.vector);
  }
}

template <typename Math, typename TileShape, bool VECTOR>
__global__ void __launch_bounds__(kTileThreads, TileShape::kMinBlocks)
    conv_fprop_kernel(const __grid_constant__ ConvFpropKernelParams p) {
  using T = typename Math::Element;
  using Pixels = PixelsOfTile<T, TileShape, ActivationSource<T>, VECTOR>;
  using Filters = FilterRowsOfTile<T, TileShape, VECTOR>;
  constexpr int kChunk = kTileK<T, TileShape>;
  const ConvShape& shape = p.conv.problem.shape;
  BlockTile block = block_tile(p.plan, blockIdx.x);
  int first_pixel = block.row_tile * TileShape::kTileM, first_filter = block.column_tile * TileShape::kTileN;
  int group_filters = shape.K / shape.groups, length = shape.R * shape.S * (shape.C / shape.groups);
  int64_t filter = static_cast<int64_t>(block.group) * group_filters + first_filter;

  Product<Math, TileShape, typename Pixels::Layout, typename Filters::Layout> product;
  Pixels pixels(ActivationSource<T>(p.conv.input, shape.C), p.window, p.steps, shape.N, block.group, first_pixel);
  Filters filters(static_cast<const T*>(p.conv.w) + filter * length, group_filters - first_filter, length);
  multiply_chunks(product, pixels, filters, (length + kChunk - 1) / kChunk, p.plan);

  StagedTile<T, TileShape> tile(shared_memory, product);
  OutputColumns columns =
      output_columns(block.group, group_filters, first_filter, tile.column(), p.vector_store);
  int rows = shape.N * shape.P * shape.Q - first_pixel;
  rows = rows < TileShape::kTileM ? rows : TileShape::kTileM;
  if (p.conv.epilogue) {
    finish_affine<T>(tile, p, block.row_tile, rows, columns);
  } else {
    finish_plain<T>(tile, p, block.row_tile, rows, columns);
  }
}

struct Fprop {
  static constexpr bool kHasFewRows = false;  // so that tiles of 64 rows are worth having for warpgroups

  template <typename Math, typename TileShape, bool VECTOR>
  static auto kernel() {
    return conv_fprop_kernel<Math, TileShape, VECTOR>;
  }
};

// Of conv_fprop_sm90.cu.
using ConvFpropKernel = void (*)(ConvFpropKernelParams);
ConvFpropKernel conv_fprop_sm90_kernel(DType dtype, const TilePlan& plan);

}  // namespace resnet_fused::cuda
