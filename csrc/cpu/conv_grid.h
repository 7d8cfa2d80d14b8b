// A convolution, or the transposed one of its backward pass, as sums over taps on regular grids of output pixels.
#pragma once

#include <vector>

#include "conv.h"

namespace resnet_fused::cpu {

struct Tap {
  int64_t dy, dx;  // input pixel = advance * grid pixel + (dy, dx)
  int64_t r, s;    // of the filter
};

struct TapGrid {
  int64_t height, width;
  int64_t y0, x0, y_step, x_step;       // output pixel = (y0, x0) + step * grid pixel
  int64_t row_advance, column_advance;  // input pixels from one grid pixel to the next
  std::vector<Tap> taps;
};

TapGrid fprop_grid(const ConvShape& shape);

// One grid for each residue of the pixels of dx by the stride: of a strided convolution's taps, each reaches only some
// pixels, and no product with a zero between draw's pixels is computed. A grid may have no taps.
std::vector<TapGrid> dgrad_grids(const ConvShape& shape);

// All grids' taps on one that is as large as the largest, for the panel that all of them read.
TapGrid join_grids(const std::vector<TapGrid>& grids);

// The panel that a grid reads, for strips of up to `rows` rows of up to `images` images, with the offsets of its groups.
struct GridPanel {
  Panel panel;
  int64_t row_advance, column_advance;  // in the panel
  std::vector<int64_t> offsets;         // [groups]
  int64_t depth;                        // of a group
  int64_t elements;                     // of the panel
};
GridPanel grid_panel(const TapGrid& grid, int64_t channels, bool folded, int64_t images, int64_t rows);

// The operand as its own panel, for grids of one tap that is every pixel itself and whole blocks of channels.
GridPanel panel_in_place(const Operand& operand);

// The panel of the output's gradient, for its product with the operand: one tap and no padding. Its blocks come in pairs,
// which a wide column tile spans.
GridPanel draw_panel(const ConvShape& shape, int64_t channels, int64_t images, int64_t rows);

// Whether a filter's row is read as one run of memory: too few channels to fill a block with.
bool can_fold(const ConvShape& shape);

}  // namespace resnet_fused::cpu
