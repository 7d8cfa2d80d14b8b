#include "conv_grid.h"

#include <algorithm>

#include "rounding.h"

namespace resnet_fused::cpu {
namespace {

// The taps along one axis that reach the pixels first, first + stride, …, with the input pixel of the first of them.
struct AxisTap {
  int64_t index, input;
};
std::vector<AxisTap> axis_taps(int64_t filter, int64_t first, int64_t stride, int64_t padding, int64_t dilation) {
  std::vector<AxisTap> taps;
  for (int64_t r = 0; r < filter; ++r) {
    int64_t reach = first + padding - r * dilation;  // = stride * p for an output pixel p of the convolution
    if (reach % stride == 0) {
      taps.push_back({r, reach / stride});
    }
  }
  return taps;
}

}  // namespace

TapGrid fprop_grid(const ConvShape& c) {
  TapGrid grid{c.P, c.Q, 0, 0, 1, 1, c.stride[0], c.stride[1], {}};
  for (int64_t r = 0; r < c.R; ++r) {
    for (int64_t s = 0; s < c.S; ++s) {
      grid.taps.push_back({r * c.dilation[0] - c.padding[0], s * c.dilation[1] - c.padding[1], r, s});
    }
  }
  return grid;
}

std::vector<TapGrid> dgrad_grids(const ConvShape& c) {
  std::vector<TapGrid> grids;
  for (int64_t y = 0; y < std::min(c.stride[0], c.H); ++y) {
    for (int64_t x = 0; x < std::min(c.stride[1], c.W); ++x) {
      TapGrid grid{(c.H - y - 1) / c.stride[0] + 1, (c.W - x - 1) / c.stride[1] + 1, y, x, c.stride[0], c.stride[1],
                   1, 1, {}};
      for (AxisTap r : axis_taps(c.R, y, c.stride[0], c.padding[0], c.dilation[0])) {
        for (AxisTap s : axis_taps(c.S, x, c.stride[1], c.padding[1], c.dilation[1])) {
          grid.taps.push_back({r.input, s.input, r.index, s.index});
        }
      }
      grids.push_back(grid);
    }
  }
  return grids;
}

TapGrid join_grids(const std::vector<TapGrid>& grids) {
  TapGrid joined = grids[0];  // at residue 0, so that none has more pixels
  for (size_t i = 1; i < grids.size(); ++i) {
    joined.taps.insert(joined.taps.end(), grids[i].taps.begin(), grids[i].taps.end());
  }
  return joined;
}

GridPanel grid_panel(const TapGrid& grid, int64_t channels, bool folded, int64_t images, int64_t rows) {
  GridPanel g{};
  if (grid.taps.empty()) {
    g.depth = kBlock;
    return g;
  }
  int64_t min_dy = grid.taps[0].dy, max_dy = min_dy, min_dx = grid.taps[0].dx, max_dx = min_dx;
  for (const Tap& tap : grid.taps) {
    min_dy = std::min(min_dy, tap.dy);
    max_dy = std::max(max_dy, tap.dy);
    min_dx = std::min(min_dx, tap.dx);
    max_dx = std::max(max_dx, tap.dx);
  }
  // One tap reads no pixels between those it needs, so they are not packed.
  bool one = grid.taps.size() == 1;
  g.row_advance = one ? 1 : grid.row_advance;
  g.column_advance = one ? 1 : grid.column_advance;
  Panel& p = g.panel;
  p.row_step = one ? grid.row_advance : 1;
  p.column_step = one ? grid.column_advance : 1;
  p.first_row = min_dy;
  p.first_column = min_dx;
  p.row_span = max_dy - min_dy + 1;
  p.columns = (grid.width - 1) * g.column_advance + max_dx - min_dx + 1;
  p.folded = folded;
  p.blocks = folded ? 1 : ceil_div(channels, kBlock);
  p.column_stride = folded ? channels : kBlock;
  p.row_stride = p.columns * p.column_stride;
  p.image_stride = ((rows - 1) * g.row_advance + p.row_span) * p.row_stride;
  // A line more: blocks a multiple of 4 KiB apart would share the cache's sets.
  p.block_stride = round_up(images * p.image_stride, kBlock) + kBlock;
  g.elements = p.blocks * p.block_stride;
  if (folded) {
    int64_t filter_columns = grid.taps.back().s + 1;
    g.depth = filter_columns * channels;
    for (size_t t = 0; t < grid.taps.size(); t += filter_columns) {
      g.offsets.push_back((grid.taps[t].dy - min_dy) * p.row_stride);
    }
    return g;
  }
  g.depth = kBlock;
  for (int64_t block = 0; block < p.blocks; ++block) {
    for (const Tap& tap : grid.taps) {
      g.offsets.push_back(block * p.block_stride + (tap.dy - min_dy) * p.row_stride +
                          (tap.dx - min_dx) * p.column_stride);
    }
  }
  return g;
}

GridPanel panel_in_place(const Operand& o) {
  GridPanel g{};
  Panel& p = g.panel;
  p.column_stride = o.pitch;
  p.row_stride = o.width * o.pitch;
  p.image_stride = o.height * p.row_stride;
  p.block_stride = kBlock;
  p.blocks = o.channels / kBlock;
  p.row_step = 1;
  g.row_advance = g.column_advance = 1;
  g.depth = kBlock;
  for (int64_t block = 0; block < p.blocks; ++block) {
    g.offsets.push_back(block * p.block_stride);
  }
  return g;
}

GridPanel draw_panel(const ConvShape& shape, int64_t channels, int64_t images, int64_t rows) {
  TapGrid grid{shape.P, shape.Q, 0, 0, 1, 1, 1, 1, {{0, 0, 0, 0}}};
  GridPanel g = grid_panel(grid, channels, false, images, rows);
  g.elements += g.panel.block_stride;
  return g;
}

bool can_fold(const ConvShape& c) {
  return c.C / c.groups < kBlock && (c.dilation[1] == 1 || c.S == 1);
}

}  // namespace resnet_fused::cpu
