// dx = dgrad(draw, w) as products [pixels][taps K] x [taps K][C], one for each class of pixels: those whose coordinates
// are equal modulo the stride are reached by the same taps of the filter, and by no others.
#pragma once

#include "conv_chunks.cuh"
#include "conv_epilogue.cuh"
#include "conv_mainloop.cuh"

namespace resnet_fused::cuda {

struct ConvDgradKernelParams {
  ConvDgradParams conv;
  TilePlan plan;
  float* partials;    // [row tiles][2][C]: sum g, sum g * (x - mean)
  bool vector_store;  // dx, add, add_out and x in pieces of 16 bytes
  int tap_step[2];    // the taps r, r + tap_step, … reach the same pixels
  // Of the pixels of a class over the output, and of the reduction over the output's channels and over the filters;
  // each for no taps: those depend on the class.
  Window window;
  TapSteps pixel_steps, filter_steps;
  bool linear;        // pixels of the only class follow each other in dx
};

// For all the pixels that the largest class has.
inline Window class_window(const ConvShape& s, const int (&tap_step)[2]) {
  return {s.P, s.Q, s.K, Divisor(class_extent(s.H, s.stride[0])), Divisor(class_extent(s.W, s.stride[1])), {0, 0},
          {1, 1}, {0, 0}, {-tap_step[0] * s.dilation[0] / s.stride[0], -tap_step[1] * s.dilation[1] / s.stride[1]}};
}

// The reduction over the filters of a group, which are the channels of draw.
inline TapSteps class_filter_steps(const ConvShape& s, const int (&tap_step)[2]) {
  int channels = s.C / s.groups;
  return tap_steps({0, 0}, s.K / s.groups, tap_step[0] * s.S * channels, tap_step[1] * channels, s.R * s.S * channels);
}

// In one direction, the taps r = first + tap_step * t, t < count, that reach pixels h = residue + stride * i: from
// output (h + padding - r * dilation) / stride = i + origin - t * (tap_step * dilation / stride).
struct ClassTaps {
  int residue, first, count, origin;

  __device__ __forceinline__ ClassTaps(int residue, int taps, int tap_step, int stride, int padding, int dilation)
      : residue(residue), first(0) {
    while (first < taps && (residue + padding - first * dilation) % stride != 0) {
      ++first;
    }
    count = (taps - first + tap_step - 1) / tap_step;
    origin = (residue + padding - first * dilation) / stride;
  }
};

struct PixelClass {
  ClassTaps r, s;

  __device__ __forceinline__ PixelClass(const ConvDgradKernelParams& p, const ConvShape& shape, int index)
      : r(index / shape.stride[1], shape.R, p.tap_step[0], shape.stride[0], shape.padding[0], shape.dilation[0]),
        s(index % shape.stride[1], shape.S, p.tap_step[1], shape.stride[1], shape.padding[1], shape.dilation[1]) {
    if (r.count == 0 || s.count == 0) {
      r.count = s.count = r.first = s.first = 0;
    }
  }

  __device__ __forceinline__ Window window_of(Window window) const {
    window.origin[0] = r.origin;
    window.origin[1] = s.origin;
    return window;
  }

  __device__ __forceinline__ TapSteps steps_of(TapSteps steps) const {
    steps.taps_r = r.count;
    steps.taps_s = s.count;
    steps.next_r -= s.count * (steps.next_s + steps.channels * steps.per_c);
    return steps;
  }
};

template <typename T, typename TileShape>
__device__ __forceinline__ void finish_dgrad(const StagedTile<T, TileShape>& tile, const ConvDgradKernelParams& p,
                                             const PixelClass& pixel_class, int row_tile, int first_pixel,
                                             const OutputColumns& columns) {
  const ConvDgradParams& conv = p.conv;
  const ConvShape& shape = conv.problem.shape;
  const Window& window = p.window;
  AffineColumns<kPiece<T>> affine(p.partials ? conv.input.affine : nullptr, shape.C, columns);
  float sum[kPiece<T>] = {}, sum_x[kPiece<T>] = {};
#pragma unroll 2
  for (int i = 0; i < tile.kRows; ++i) {
    int64_t number = first_pixel + tile.row(i);
    if (p.linear) {
      if (number >= shape.N * shape.H * shape.W) {
        break;
      }
    } else {
      Pixel pixel = pixel_at(static_cast<int>(number), window.rows, window.columns);
      int h = pixel_class.r.residue + shape.stride[0] * pixel.i, w = pixel_class.s.residue + shape.stride[1] * pixel.j;
      if (pixel.n >= shape.N || h >= shape.H || w >= shape.W) {
        continue;
      }
      number = (static_cast<int64_t>(pixel.n) * shape.H + h) * shape.W + w;
    }
    int64_t offset = number * shape.C + columns.channel;
    float v[kPiece<T>], other[kPiece<T>];
    tile.read(v, i);
    if (conv.add) {
      float add_out[kPiece<T>];
      load_elements(other, static_cast<const T*>(conv.add) + offset, columns.count, columns.vector);
      if (conv.add_out) {
        load_elements(add_out, static_cast<const T*>(conv.add_out) + offset, columns.count, columns.vector);
      }
#pragma unroll
      for (int e = 0; e < kPiece<T>; ++e) {
        v[e] = rounded<T>(v[e]) + (conv.add_out ? zero_up_to_zero(add_out[e], other[e]) : other[e]);
      }
    }
    store_elements(static_cast<T*>(conv.dx) + offset, v, columns.count, columns.vector);
    if (p.partials) {
      load_elements(other, static_cast<const T*>(conv.input.x) + offset, columns.count, columns.vector);
#pragma unroll
      for (int e = 0; e < kPiece<T>; ++e) {
        float centred = other[e] - affine.mean[e], g = rounded<T>(v[e]);
        g = conv.input.relu ? zero_up_to_zero(affine_of(centred, affine.scale[e], affine.shift[e]), g) : g;
        sum[e] += g;
        sum_x[e] = fmaf(g, centred, sum_x[e]);
      }
    }
  }
  if (p.partials) {
    ColumnSums totals = tile.sum_columns(sum, sum_x);
    if (int channel = columns.first_channel + threadIdx.x; totals.there && channel < columns.end_channel) {
      float* partial = p.partials + static_cast<int64_t>(row_tile) * 2 * shape.C + channel;
      partial[0] = totals.first;
      partial[shape.C] = totals.second;
    }
  }
}

template <typename Math, typename TileShape, bool VECTOR>
__global__ void __launch_bounds__(kTileThreads, kDrawMinBlocks<Math, TileShape>)
    conv_dgrad_kernel(const __grid_constant__ ConvDgradKernelParams p) {
  using T = typename Math::Element;
  using Pixels = PixelsOfTile<T, TileShape, DrawOfTile<T, TileShape>, VECTOR>;
  using Filters = FilterTapsOfTile<T, TileShape, VECTOR>;
  constexpr int kChunk = kTileK<T, TileShape>;
  const ConvShape& shape = p.conv.problem.shape;
  BlockTile block = block_tile(p.plan, blockIdx.x);
  int class_tiles = p.plan.row_tiles / (shape.stride[0] * shape.stride[1]), index = block.row_tile / class_tiles;
  PixelClass pixel_class(p, shape, index);
  int first_pixel = (block.row_tile - index * class_tiles) * TileShape::kTileM;
  int group_channels = shape.C / shape.groups, group_filters = shape.K / shape.groups;
  int first_channel = block.column_tile * TileShape::kTileN;
  int length = pixel_class.r.count * pixel_class.s.count * group_filters;
  int64_t filter = static_cast<int64_t>(block.group) * group_filters;
  int64_t first_tap = (filter * shape.R + pixel_class.r.first) * shape.S + pixel_class.s.first;

  Product<Math, TileShape, typename Pixels::Layout, typename Filters::Layout> product;
  Pixels pixels(DrawOfTile<T, TileShape>(p.conv.draw, shape.K), pixel_class.window_of(p.window),
                pixel_class.steps_of(p.pixel_steps), shape.N, block.group, first_pixel);
  Filters filters(static_cast<const T*>(p.conv.w) + first_tap * group_channels + first_channel,
                  group_channels - first_channel, pixel_class.steps_of(p.filter_steps));
  multiply_chunks(product, pixels, filters, (length + kChunk - 1) / kChunk, p.plan);

  StagedTile<T, TileShape> tile(shared_memory, product);
  OutputColumns columns =
      output_columns(block.group, group_channels, first_channel, tile.column(), p.vector_store);
  finish_dgrad<T>(tile, p, pixel_class, block.row_tile, first_pixel, columns);
}

struct Dgrad {
  static constexpr bool kHasFewRows = false;  // so that tiles of 64 rows are worth having for warpgroups

  template <typename Math, typename TileShape, bool VECTOR>
  static auto kernel() {
    return conv_dgrad_kernel<Math, TileShape, VECTOR>;
  }
};

// Of conv_dgrad_sm90.cu.
using ConvDgradKernel = void (*)(ConvDgradKernelParams);
ConvDgradKernel conv_dgrad_sm90_kernel(DType dtype, const TilePlan& plan);

}  // namespace resnet_fused::cuda
