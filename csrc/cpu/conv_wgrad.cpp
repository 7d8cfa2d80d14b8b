// Gradients of the weights by products of packed strips.
#include "conv.h"
#include "conv_grid.h"
#include "conv_plan.h"
#include "conv_result.h"
#include "isa.h"
#include "launch.h"
#include "rounding.h"
#include "tasks.h"

namespace resnet_fused::cpu {

void conv_wgrad_direct(DType dtype, const ConvShape& shape, const ConvPlan& whole, Operand operand, Operand draw,
                       void* weights, const WeightStrides& strides, const Allocate& allocate) {
  const Kernels& kernels = active_kernels();
  int index = static_cast<int>(dtype);
  operand.channels = shape.C / shape.groups;
  draw.channels = shape.K / shape.groups;
  bool folded = can_fold(shape);
  TapGrid grid = fprop_grid(shape);
  int64_t columns = kernels.micro_columns[index], tiles = ceil_div(draw.channels, columns);
  const WgradPlan& plan = whole.wgrad;
  GridPanel a = grid_panel(grid, operand.channels, folded, plan.strips.images, plan.strips.rows);
  GridPanel b = draw_panel(shape, draw.channels, plan.strips.images, plan.strips.rows);

  int64_t groups = a.offsets.size(), sums_stride = tiles * groups * (folded ? a.depth : kBlock) * columns;
  int64_t operand_offset = round_up(plan.strips.images * plan.strips.rows * sizeof(int64_t), kLine);
  int64_t draw_offset = operand_offset + round_up(a.elements * acc_size(dtype), kLine);
  int64_t stride = draw_offset + round_up(b.elements * acc_size(dtype), kLine) + kLine;
  int64_t workers = plan.parts * plan.strips.splits;
  char* workspace = static_cast<char*>(allocate(workers * stride));
  char* sums = static_cast<char*>(allocate(plan.parts * sums_stride * acc_size(dtype)));

  std::vector<int64_t> taps;
  int64_t fold = folded ? shape.S : 0;
  for (size_t t = 0; t < grid.taps.size(); t += std::max<int64_t>(fold, 1)) {
    taps.push_back(grid.taps[t].r * strides.row + grid.taps[t].s * strides.column);
  }
  WgradParams params{operand, draw, a.panel, b.panel, a.row_advance, a.column_advance, a.offsets.data(), groups,
                     a.depth, plan.strips.images, plan.strips.rows, plan.strips.image_strips, plan.strips.row_strips,
                     plan.parts, plan.strips.splits, workspace, stride, operand_offset, draw_offset, sums, sums_stride};
  for (int64_t g = 0; g < shape.groups; ++g) {
    params.operand.first = g * operand.channels;
    params.draw.first = g * draw.channels;
    parallel_for(workers, [&](int64_t worker) { kernels.conv_wgrad[index](params, worker, worker); });
    char* target = static_cast<char*>(weights) + g * draw.channels * strides.out * element_size(dtype);
    UnpackWeightsParams unpack{{nullptr, strides, draw.channels, operand.channels, taps.data(), int64_t(taps.size()),
                                fold, nullptr},
                               sums, sums_stride, plan.parts, target};
    run_tasks(kernels.unpack_weights[index], unpack, tiles);
  }
}

}  // namespace resnet_fused::cpu
