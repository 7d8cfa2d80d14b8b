// Depthwise convolutions in all three passes.
#include "conv.h"
#include "conv_grid.h"
#include "conv_plan.h"
#include "conv_result.h"
#include "isa.h"
#include "launch.h"
#include "rounding.h"
#include "tasks.h"

namespace resnet_fused::cpu {
namespace {

// The weights [C, 1, R, S] of some taps as the kernels have them: [column tiles][taps][columns].
struct DepthwiseWeights {
  std::vector<int64_t> taps;
  PackWeightsParams params;

  DepthwiseWeights(const std::vector<Tap>& which, int64_t channels, const WeightStrides& strides) {
    for (const Tap& tap : which) {
      taps.push_back(tap.r * strides.row + tap.s * strides.column);
    }
    params = {nullptr, strides, channels, 1, taps.data(), int64_t(taps.size()), 1, nullptr};
  }
};

const void* pack(DType dtype, const TapGrid& grid, int64_t channels, const ConvWeights& weights,
                 const Allocate& allocate) {
  const Kernels& kernels = active_kernels();
  int index = static_cast<int>(dtype);
  int64_t columns = kernels.micro_columns[index], tiles = ceil_div(channels, columns);
  DepthwiseWeights order(grid.taps, channels, weights.strides);
  KeptMemory packed = packed_memory(weights, Packed::kDepthwise,
                                    tiles * grid.taps.size() * columns * acc_size(dtype), allocate);
  if (!packed.ready) {
    order.params.weights = weights.data;
    order.params.packed = packed.data;
    run_tasks(kernels.pack_weights[index], order.params, tiles);
  }
  return packed.data;
}

// Bytes of a panel with the channels of one of so many splits.
int64_t split_bytes(DType dtype, const Panel& panel, int64_t tiles, int64_t splits, int64_t columns) {
  int64_t elements = ceil_div(ceil_div(tiles, splits) * columns, kBlock) * panel.block_stride;
  return round_up(elements * acc_size(dtype), kLine) + kLine;
}

void run_grids(DType dtype, const std::vector<TapGrid>& grids, const Strips& strips, const ConvWeights& weights,
               const Operand& operand, Result result, Partials& partials, const Allocate& allocate) {
  const Kernels& kernels = active_kernels();
  int index = static_cast<int>(dtype);
  int64_t columns = kernels.micro_columns[index], tiles = ceil_div(result.channels, columns);
  TapGrid joined = join_grids(grids);
  GridPanel g = grid_panel(joined, operand.channels, false, 1, 1);
  partials.add(operand.images, joined.height, joined.width, strips);
  result.partial = partials.allocate(allocate);
  result.partial_stride = partials.stride();

  std::vector<DepthwiseTap> taps;
  for (size_t t = 0; t < joined.taps.size(); ++t) {
    taps.push_back({g.offsets[t] / g.panel.row_stride, g.offsets[t] % g.panel.row_stride});
  }
  std::vector<DepthwiseGrid> places;
  const DepthwiseTap* next = taps.data();
  size_t most_taps = 0;
  for (const TapGrid& grid : grids) {
    const void* packed = pack(dtype, grid, result.channels, weights, allocate);
    places.push_back({grid.height, grid.width, grid.y0, grid.x0, grid.y_step, grid.x_step, next,
                      int64_t(grid.taps.size()), packed});
    next += grid.taps.size();
    most_taps = std::max(most_taps, grid.taps.size());
  }
  int64_t sums_offset = round_up(most_taps * sizeof(int64_t), kLine);
  int64_t panel_offset = sums_offset + round_up(joined.width * columns * acc_size(dtype), kLine);
  int64_t states_offset = panel_offset + split_bytes(dtype, g.panel, tiles, strips.splits, columns);
  int64_t stride = states_offset + ceil_div(tiles, strips.splits) * round_up(4 * columns * acc_size(dtype), kLine);
  int64_t tasks = strips.image_strips * strips.row_strips * strips.splits;
  DepthwiseParams params{operand, result, g.panel, g.row_advance, g.column_advance, places.data(),
                         int64_t(places.size()), joined.height, strips.images, strips.rows, strips.image_strips,
                         strips.row_strips, strips.splits, allocate(workers_for(tasks) * stride), stride, sums_offset,
                         panel_offset, states_offset};
  run_tasks(kernels.conv_depthwise[index], params, tasks);
}

}  // namespace

void conv_fprop_depthwise(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                          Operand operand, Result result, Partials& partials, const Allocate& allocate) {
  run_grids(dtype, {fprop_grid(shape)}, plan.strips[0], weights, operand, result, partials, allocate);
}

void conv_dgrad_depthwise(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                          Operand draw, Result result, Partials& partials, const Allocate& allocate) {
  run_grids(dtype, dgrad_grids(shape), plan.strips[0], {weights.data, weights.strides, nullptr}, draw, result, partials,
            allocate);
}

void conv_wgrad_depthwise(DType dtype, const ConvShape& shape, const ConvPlan& plan, Operand operand, Operand draw,
                          void* weights, const WeightStrides& strides, const Allocate& allocate) {
  const Kernels& kernels = active_kernels();
  int index = static_cast<int>(dtype);
  int64_t columns = kernels.micro_columns[index], tiles = ceil_div(shape.C, columns);
  int64_t parts = plan.wgrad.parts, splits = plan.wgrad.strips.splits;
  TapGrid grid = fprop_grid(shape);
  GridPanel a = grid_panel(grid, shape.C, false, 1, 1), b = draw_panel(shape, shape.C, 1, 1);
  int64_t operand_offset = round_up(shape.Q * sizeof(int64_t), kLine);
  int64_t draw_offset = operand_offset + split_bytes(dtype, a.panel, tiles, splits, columns);
  int64_t stride = draw_offset + split_bytes(dtype, b.panel, tiles, splits, columns);
  int64_t sums_stride = tiles * grid.taps.size() * columns;
  void* workspace = allocate(workers_for(parts * splits) * stride);
  void* sums = allocate(parts * sums_stride * acc_size(dtype));
  DepthwiseWgradParams params{operand, draw, a.panel, b.panel, a.row_advance, a.column_advance, shape.R, shape.S,
                              shape.dilation[0], shape.dilation[1], parts, splits, workspace, stride, operand_offset,
                              draw_offset, sums, sums_stride};
  run_tasks(kernels.depthwise_wgrad[index], params, parts * splits);
  DepthwiseWeights order(grid.taps, shape.C, strides);
  run_tasks(kernels.unpack_weights[index], UnpackWeightsParams{order.params, sums, sums_stride, parts, weights}, tiles);
}

}  // namespace resnet_fused::cpu
