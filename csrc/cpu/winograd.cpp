// Winograd convolutions: which problems they take, and their blocks over the threads.
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

constexpr int64_t kPad = kBlock;  // elements between places: a multiple of 4 KiB would share the cache's sets

// The panel of `rows` tile rows of one image, whose tiles are `size` pixels wide.
Panel tile_panel(const TileRows& t, int64_t size, int64_t first_row, int64_t first_column, int64_t channels,
                 int64_t rows) {
  Panel p{};
  p.row_step = p.column_step = 1;
  p.first_row = first_row;
  p.first_column = first_column;
  p.columns = t.columns * kWinogradTile + size - kWinogradTile;
  p.blocks = ceil_div(channels, kBlock);
  p.column_stride = kBlock;
  p.row_stride = p.columns * kBlock;
  p.block_stride = (rows * kWinogradTile + size - kWinogradTile) * p.row_stride + kPad;
  return p;
}

// Of `count` tiles.
WinogradTiles tile_strides(int64_t count, int64_t blocks) {
  int64_t block = count * kBlock + (blocks > 1 ? kPad : 0);
  return {nullptr, blocks * block + kPad, block};
}

// Offsets into a worker's memory.
class Layout {
 public:
  explicit Layout(DType dtype) : size_(acc_size(dtype)) {}
  int64_t add(int64_t elements) {
    int64_t offset = bytes_;
    bytes_ += round_up(elements * size_, kLine) + kLine;
    return offset;
  }
  int64_t bytes() const {
    return bytes_;
  }

 private:
  int64_t size_, bytes_ = 0;
};

// As the kernels cut tile rows into blocks.
int64_t block_begin(int64_t rows, int64_t blocks, int64_t block) {
  return block * (rows / blocks) + std::min(block, rows % blocks);
}

std::vector<int64_t> nine_taps(const TapGrid& grid, const WeightStrides& strides) {
  std::vector<int64_t> taps(9);
  int64_t min_dy = grid.taps[0].dy, min_dx = grid.taps[0].dx;
  for (const Tap& tap : grid.taps) {
    min_dy = std::min(min_dy, tap.dy);
    min_dx = std::min(min_dx, tap.dx);
  }
  for (const Tap& tap : grid.taps) {  // dgrad's are turned round
    taps[(tap.dy - min_dy) * 3 + tap.dx - min_dx] = tap.r * strides.row + tap.s * strides.column;
  }
  return taps;
}

void run_winograd(DType dtype, const TapGrid& grid, WinogradPlan plan, const ConvWeights& weights, const Operand& operand,
                  Result result, Partials& partials, const Allocate& allocate) {
  const Kernels& kernels = active_kernels();
  int index = static_cast<int>(dtype);
  int64_t columns = kernels.micro_columns[index], column_tiles = ceil_div(result.channels, columns);
  TileRows rows{ceil_div(grid.height, kWinogradTile), ceil_div(grid.width, kWinogradTile), 1};
  int64_t weights_stride = round_up(operand.channels, kBlock) * columns + kPad;
  int64_t transformed_bytes = column_tiles * kWinogradPlaces * weights_stride * acc_size(dtype);
  KeptMemory transformed{nullptr, false};
  if (weights.keep) {
    transformed = packed_memory(weights, Packed::kWinograd, transformed_bytes, allocate);
    plan.transform_once = true;
  }
  rows.blocks = plan.blocks;
  int64_t all = operand.images * rows.per_image, most = ceil_div(all, rows.blocks);  // tile rows; of a block
  for (int64_t b = 0; b < rows.blocks; ++b) {
    int64_t count = 0;
    for (int64_t r = block_begin(all, rows.blocks, b); r < block_begin(all, rows.blocks, b + 1); ++r) {
      count += std::min(kWinogradTile, grid.height - r % rows.per_image * kWinogradTile) * grid.width;
    }
    partials.add(count);
  }
  result.partial = partials.allocate(allocate);
  result.partial_stride = partials.stride();

  int64_t min_dy = grid.taps[0].dy, min_dx = grid.taps[0].dx;
  for (const Tap& tap : grid.taps) {
    min_dy = std::min(min_dy, tap.dy);
    min_dx = std::min(min_dx, tap.dx);
  }
  int64_t packed_rows = plan.shared ? 1 : std::min(most, rows.per_image);
  WinogradParams p{};
  p.operand = operand;
  p.panel = tile_panel(rows, kWinogradInput, min_dy, min_dx, operand.channels, packed_rows);
  p.result = result;
  p.rows = rows;
  p.height = grid.height;
  p.width = grid.width;
  p.tiles = tile_strides(most * rows.columns, p.panel.blocks);
  p.products_stride = most * rows.columns * columns + kPad;

  std::vector<int64_t> taps = nine_taps(grid, weights.strides);
  p.weights = {weights.data, weights.strides, result.channels, operand.channels, taps.data(), 9, 0, nullptr};
  p.weights_stride = weights_stride;
  p.shared = plan.shared;
  p.workers = workers_for(rows.blocks);
  if (plan.transform_once) {
    p.transformed = transformed.data ? transformed.data : allocate(transformed_bytes);
    if (!transformed.ready) {
      run_tasks(kernels.winograd_weights[index], p, column_tiles);
    }
  }
  int64_t tile_elements = kWinogradPlaces * p.tiles.place_stride;
  if (plan.shared) {
    p.tiles.data = allocate(tile_elements * acc_size(dtype));
  }
  Layout layout(dtype);
  p.panel_offset = layout.add(p.panel.blocks * p.panel.block_stride);
  p.products_offset = layout.add(kWinogradPlaces * p.products_stride);
  p.weights_offset = layout.add(plan.transform_once ? 0 : kWinogradPlaces * weights_stride);
  p.tiles_offset = layout.add(plan.shared ? 0 : tile_elements);
  p.workspace_stride = layout.bytes();
  p.workspace = allocate(max_threads() * layout.bytes());
  if (!plan.shared) {
    return run_tasks(kernels.winograd_block[index], p, rows.blocks);
  }
  for (p.block = 0; p.block < rows.blocks; ++p.block) {
    int64_t count = block_begin(all, rows.blocks, p.block + 1) - block_begin(all, rows.blocks, p.block);
    run_tasks(kernels.winograd_input[index], p, count);
    run_tasks(kernels.winograd_output[index], p, column_tiles);
  }
}

}  // namespace

void conv_fprop_winograd(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                         Operand operand, Result result, Partials& partials, const Allocate& allocate) {
  run_winograd(dtype, fprop_grid(shape), plan.winograd, weights, operand, result, partials, allocate);
}

void conv_dgrad_winograd(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                         Operand draw, Result result, Partials& partials, const Allocate& allocate) {
  const WeightStrides& w = weights.strides;
  ConvWeights turned{weights.data, {w.in, w.out, w.row, w.column}, nullptr};
  run_winograd(dtype, dgrad_grids(shape)[0], plan.winograd, turned, draw, result, partials, allocate);
}

void conv_wgrad_winograd(DType dtype, const ConvShape& shape, const ConvPlan& whole, Operand operand, Operand draw,
                         void* weights, const WeightStrides& strides, const Allocate& allocate) {
  const Kernels& kernels = active_kernels();
  int index = static_cast<int>(dtype);
  int64_t columns = kernels.micro_columns[index], column_tiles = ceil_div(draw.channels, columns);
  TileRows rows{ceil_div(shape.P, kWinogradTile), ceil_div(shape.Q, kWinogradTile), 1};
  const WinogradPlan& plan = whole.winograd;
  rows.blocks = plan.blocks;
  int64_t all = draw.images * rows.per_image, most = ceil_div(all, rows.blocks);
  int64_t packed_rows = plan.shared ? 1 : std::min(most, rows.per_image);
  WinogradWgradParams p{};
  p.operand = operand;
  p.draw = draw;
  p.rows = rows;
  p.panel = tile_panel(rows, kWinogradInput, -shape.padding[0], -shape.padding[1], operand.channels, packed_rows);
  p.draw_panel = tile_panel(rows, kWinogradTile, 0, 0, draw.channels, packed_rows);
  p.tiles = tile_strides(most * rows.columns, p.panel.blocks);
  p.draw_tiles = tile_strides(most * rows.columns, p.draw_panel.blocks);
  p.parts = plan.shared ? 1 : std::min<int64_t>(max_threads(), rows.blocks);
  int64_t elements = kWinogradPlaces * p.tiles.place_stride;
  // A wide column tile may reach into a block of channels that is not there.
  int64_t draw_elements = kWinogradPlaces * p.draw_tiles.place_stride + p.draw_tiles.block_stride;
  if (plan.shared) {
    p.tiles.data = allocate(elements * acc_size(dtype));
    p.draw_tiles.data = allocate(draw_elements * acc_size(dtype));
  }
  int64_t squares = column_tiles * p.panel.blocks, square = kBlock * columns;
  // Two by two read each tile half as often, while their sums stay in a core's cache: if there are enough for all.
  auto tasks = [&](int64_t across) { return ceil_div(column_tiles, across) * ceil_div(p.panel.blocks, across); };
  p.squares_across = tasks(2) >= 2 * max_threads() ? 2 : 1;
  Layout layout(dtype);
  p.panel_offset = layout.add(
      std::max(p.panel.blocks * p.panel.block_stride, p.draw_panel.blocks * p.draw_panel.block_stride));
  p.tiles_offset = layout.add(plan.shared ? 0 : elements);
  p.draw_tiles_offset = layout.add(plan.shared ? 0 : draw_elements);
  p.sums_offset = layout.add(plan.shared ? (p.squares_across * p.squares_across * kWinogradPlaces + 9) * square
                                         : kWinogradPlaces * (squares * square + kPad));
  p.workspace_stride = layout.bytes();
  p.workspace = allocate(max_threads() * layout.bytes());
  p.sums_stride = squares * 9 * square;
  if (!plan.shared || rows.blocks > 1) {
    p.sums = allocate(p.parts * p.sums_stride * acc_size(dtype));
  }
  std::vector<int64_t> taps = nine_taps(fprop_grid(shape), strides);
  p.layout = {nullptr, strides, draw.channels, operand.channels, taps.data(), 9, 0, nullptr};
  p.weights = weights;
  if (!plan.shared) {
    parallel_for(p.parts, [&](int64_t worker) { kernels.winograd_wgrad_blocks[index](p, worker, worker); });
    UnpackWeightsParams unpack{p.layout, p.sums, p.sums_stride, p.parts, weights};
    return run_tasks(kernels.unpack_weights[index], unpack, column_tiles);
  }
  for (p.block = 0; p.block < rows.blocks; ++p.block) {
    int64_t count = block_begin(all, rows.blocks, p.block + 1) - block_begin(all, rows.blocks, p.block);
    p.last = p.block + 1 == rows.blocks;
    run_tasks(kernels.winograd_wgrad_input[index], p, count);
    run_tasks(kernels.winograd_wgrad_output[index], p, tasks(p.squares_across));
  }
}

}  // namespace resnet_fused::cpu
