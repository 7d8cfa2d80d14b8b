// Forward and backward-data convolutions by the implicit matrix product.
#include <numeric>

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

struct Work {
  DirectParams params;
  std::vector<int64_t> offsets;
  int64_t tasks;
};

struct Product {
  DType dtype;
  TapGrid grid;
  bool folded;
  ConvWeights weights;  // strides by their role here: out and in
  Operand operand;
  Result result;
  const Allocate& allocate;

  const void* pack(const GridPanel& g) const {
    const Kernels& kernels = active_kernels();
    int index = static_cast<int>(dtype);
    int64_t columns = kernels.micro_columns[index], tiles = ceil_div(result.channels, columns);
    std::vector<int64_t> taps;
    int64_t fold = folded ? grid.taps.back().s + 1 : 0;
    for (size_t t = 0; t < grid.taps.size(); t += std::max<int64_t>(fold, 1)) {
      taps.push_back(grid.taps[t].r * weights.strides.row + grid.taps[t].s * weights.strides.column);
    }
    KeptMemory packed = packed_memory(weights, Packed::kDirect,
                                      tiles * g.offsets.size() * g.depth * columns * acc_size(dtype), allocate);
    if (!packed.ready) {
      PackWeightsParams params{weights.data, weights.strides, result.channels, operand.channels,
                               taps.data(),  int64_t(taps.size()), fold, packed.data};
      run_tasks(kernels.pack_weights[index], params, tiles);
    }
    return packed.data;
  }

  // Whether the products can read the operand where it lies: one tap, which is every pixel itself, of whole blocks of
  // channels that no prologue changes and no conversion widens. Packing takes an eighth of what 1x1 filters take that
  // channels outnumber fourfold, less of others.
  bool reads_in_place() const {
    bool pixelwise = grid.taps.size() == 1 && grid.taps[0].dy == 0 && grid.taps[0].dx == 0 && grid.row_advance == 1 &&
                     grid.column_advance == 1 && grid.height == operand.height && grid.width == operand.width;
    bool accumulated = dtype == DType::kFloat32 || dtype == DType::kFloat64;
    // The lines of a tile's rows that share a set of the first-level cache, which has 64 sets of 64 bytes (on x86) and as
    // many ways as they go into it: two of the ways are for the weights.
    constexpr int64_t kSets = 4096;
    int64_t apart = std::gcd(operand.pitch * element_size(dtype), kSets), ways = machine_caches().l1 / kSets - 2;
    return pixelwise && accumulated && operand.form == Form::kPlain && operand.channels % kBlock == 0 &&
           active_kernels().micro_rows * apart <= ways * kSets;
  }

  // All but the workers' memory, of which params.workspace_stride bytes are needed for each.
  Work prepare(const Strips& s, int64_t first_part) const {
    const Kernels& kernels = active_kernels();
    int index = static_cast<int>(dtype);
    bool in_place = reads_in_place();
    GridPanel g = in_place ? panel_in_place(operand)
                           : grid_panel(grid, operand.channels, folded, s.images, s.rows);
    int64_t columns = kernels.micro_columns[index], tiles = ceil_div(result.channels, columns);
    int64_t groups = g.offsets.size(), group_bytes = g.depth * columns * acc_size(dtype);
    // Whole pixels are written at a time where all the weights stay in the second-level cache.
    bool pixels_first = tiles * groups * group_bytes <= resident_bytes(machine_caches());
    int64_t chunk = pixels_first ? groups : plan_chunk(groups, group_bytes, machine_caches());
    int64_t rows = chunk < groups ? s.images * s.rows * grid.width : kernels.micro_rows;
    int64_t panel_offset = round_up(rows * columns * acc_size(dtype), kLine);
    int64_t states_offset = panel_offset + round_up(g.elements * acc_size(dtype), kLine) + kLine;
    int64_t stride = states_offset + tiles * round_up(4 * columns * acc_size(dtype), kLine);
    const void* packed = grid.taps.empty() ? nullptr : pack(g);
    Work work{{}, std::move(g.offsets), s.image_strips * s.row_strips * s.splits};
    work.params = {operand, result, g.panel,
                   {grid.height, grid.width, grid.y0, grid.x0, grid.y_step, grid.x_step, g.row_advance,
                    g.column_advance, work.offsets.data(), int64_t(work.offsets.size()), g.depth, packed},
                   s.images, s.rows, s.image_strips, s.row_strips, s.splits, in_place, pixels_first,
                   std::max<int64_t>(chunk, 1), first_part, workers_for(work.tasks), nullptr, stride, panel_offset,
                   states_offset};
    return work;
  }
};

// The tasks of all grids in one order, those on the same part of the image after each other: they read the same memory.
void run_together(DType dtype, std::vector<Work>& works, const Allocate& allocate) {
  struct Turn {
    double place;
    const Work* work;
    int64_t task;
  };
  std::vector<Turn> turns;
  int64_t stride = 0;
  for (const Work& work : works) {
    stride = std::max(stride, work.params.workspace_stride);
    for (int64_t task = 0; task < work.tasks; ++task) {
      turns.push_back({(task + 0.5) / work.tasks, &work, task});
    }
  }
  std::stable_sort(turns.begin(), turns.end(), [](const Turn& a, const Turn& b) { return a.place < b.place; });
  int64_t workers = workers_for(turns.size());
  void* workspace = allocate(workers * stride);
  for (Work& work : works) {
    work.params.workspace = workspace;
    work.params.workspace_stride = stride;
    work.params.workers = workers;
  }
  auto function = active_kernels().conv_direct[static_cast<int>(dtype)];
  std::atomic<size_t> next{0};
  parallel_for(workers, [&](int64_t worker) {
    for (size_t i = next++; i < turns.size(); i = next++) {
      function(turns[i].work->params, worker, turns[i].task);
    }
  });
}

void run_grids(DType dtype, const std::vector<TapGrid>& grids, const std::vector<Strips>& strips, bool folded,
               int64_t groups, const ConvWeights& weights, const WeightStrides& roles, int64_t group_step,
               const Operand& operand, Result result, Partials& partials, const Allocate& allocate) {
  std::vector<Product> products;
  for (size_t i = 0; i < grids.size(); ++i) {
    products.push_back({dtype, grids[i], folded, {weights.data, roles, groups == 1 ? weights.keep : nullptr}, operand,
                        result, allocate});
    partials.add(operand.images, grids[i].height, grids[i].width, strips[i]);
  }
  result.partial = partials.allocate(allocate);
  result.partial_stride = partials.stride();
  for (int64_t g = 0; g < groups; ++g) {
    int64_t first_part = 0;
    std::vector<Work> works;
    for (size_t i = 0; i < products.size(); ++i) {
      Product& product = products[i];
      product.result = result;
      product.weights.data = static_cast<const char*>(weights.data) + g * group_step * element_size(dtype);
      product.operand.first = g * operand.channels;
      product.result.first = g * result.channels;
      works.push_back(product.prepare(strips[i], first_part));
      first_part += strips[i].image_strips * strips[i].row_strips;
    }
    run_together(dtype, works, allocate);
  }
}

}  // namespace

void conv_fprop_direct(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                       Operand operand, Result result, Partials& partials, const Allocate& allocate) {
  operand.channels = shape.C / shape.groups;
  result.channels = shape.K / shape.groups;
  run_grids(dtype, {fprop_grid(shape)}, plan.strips, can_fold(shape), shape.groups, weights, weights.strides,
            result.channels * weights.strides.out, operand, result, partials, allocate);
}

void conv_dgrad_direct(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                       Operand draw, Result result, Partials& partials, const Allocate& allocate) {
  draw.channels = shape.K / shape.groups;
  result.channels = shape.C / shape.groups;
  const WeightStrides& w = weights.strides;
  run_grids(dtype, dgrad_grids(shape), plan.strips, false, shape.groups, weights, {w.in, w.out, w.row, w.column},
            draw.channels * w.out, draw, result, partials, allocate);
}

}  // namespace resnet_fused::cpu
