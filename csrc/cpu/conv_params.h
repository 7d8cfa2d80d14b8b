// Arguments of the convolution kernels. Tensors are channels_last; `acc` is the accumulation type (params.h).
#pragma once

#include "types.h"

namespace resnet_fused::cpu {

// Channels in a block of a panel [blocks][pixels][kBlock], in which operands are packed.
constexpr int64_t kBlock = 16;

// What a convolution reads, computed from what memory holds while it is packed.
enum class Form : int {
  kPlain,       // x
  kAffine,      // [relu] z(x)
  kMasked,      // x where not (out <= 0)
  kDraw,        // scale * (x - mean_g - slope * (raw - mean)): the gradient of a batch norm's input
  kDrawOutput,  // the same with x where not (out <= 0)
  kDrawAffine,  // the same with x where not (z(raw) <= 0)
};

struct Operand {
  Form form;
  const void *x, *raw, *out;
  const void* affine;            // acc [4, channels]
  const void *mean_g, *slope;    // acc [channels]
  bool relu;
  int64_t images, height, width;
  int64_t pitch;                 // channels of the tensor: elements from pixel to pixel
  int64_t first;                 // channel
  int64_t channels;              // of this group
};

// What becomes of a result y on its way to memory.
enum class Finish : int {
  kStore,
  kStatistics,  // store, and its mean and sum of squared deviations
  kApply,       // [relu](z(y) + (residual | z(residual) | nothing))
  // y + (add where not (add_out <= 0)), and the sums of g and g * (x - mean), g masked by [relu] z(x). With raw: that
  // gradient where not (x <= 0), and its sums with raw, and raw2: x is the ReLU of a sum of their batch norms.
  kBackward,
};

struct Result {
  Finish finish;
  void* y;
  int64_t height, width, pitch, first, channels;
  const void* affine;  // of y, of x, or of raw
  bool relu;
  const void *residual, *residual_affine;
  const void *add, *add_out, *x, *raw, *raw2, *affine2;
  double* partial;     // [parts][rows()][partial_stride], of the statistics or sums; may be null
  int64_t partial_stride;

  int64_t rows() const {
    return raw2 ? 3 : 2;
  }
};

// A panel: element (block, image, row, column, c) of the packed operand.
struct Panel {
  int64_t block_stride, image_stride, row_stride, column_stride;
  int64_t blocks;
  int64_t row_span, columns;          // rows that one grid row reads; all columns
  int64_t first_row, first_column;    // the input pixel at row 0 of grid row 0, column 0
  int64_t row_step, column_step;      // input pixels from row to row, from column to column
  bool folded;                        // fewer than kBlock channels: pixels directly after each other
};

// Output pixels (y0 + i * y_step, x0 + j * x_step), each a sum over `groups` runs of `depth` packed elements.
struct Grid {
  int64_t height, width;
  int64_t y0, x0, y_step, x_step;
  int64_t row_advance, column_advance;  // panel rows and columns from one grid row and column to the next
  const int64_t* offsets;               // [groups], in elements of the panel
  int64_t groups, depth;
  const void* weights;                  // packed: [column tiles][groups][depth][columns]
};

// Strips of grid rows of some images: one task packs a panel, if need be, and convolves it with some tiles of output
// channels.
struct DirectParams {
  Operand operand;
  Result result;
  Panel panel;
  Grid grid;
  int64_t strip_images, strip_rows;     // of a task
  int64_t image_strips, row_strips;     // images / strip_images, height / strip_rows, rounded up
  int64_t splits;                       // of the output channels' tiles over tasks
  bool in_place;                        // the operand is its own panel: nothing is packed
  bool pixels_first;                    // all channels of some pixels, then the next pixels; else the other way round
  int64_t chunk;                        // of the grid's groups: with these of all pixels, then with the next
  int64_t first_part;                   // of result.partial
  int64_t workers;
  void* workspace;                      // for each worker: products, the panel, the column tiles' sums
  int64_t workspace_stride, panel_offset, states_offset;
};

struct WeightStrides {
  int64_t out, in, row, column;  // elements; row and column of the filter
};

struct PackWeightsParams {
  const void* weights;
  WeightStrides strides;
  int64_t out_channels, in_channels;
  const int64_t* taps;  // [tap_count] offsets of the weights
  int64_t tap_count;    // folded: rows; their columns follow each other
  int64_t fold;         // folded: filter columns, else 0
  void* packed;
};

// Depthwise: output channel c of input channel c alone. A tap reads a panel row further by `row`, and there an element
// further by `column`.
struct DepthwiseTap {
  int64_t row, column;
};
struct DepthwiseGrid {
  int64_t height, width;
  int64_t y0, x0, y_step, x_step;
  const DepthwiseTap* taps;
  int64_t tap_count;
  const void* weights;                  // packed: [column tiles][taps][columns]
};

// One task goes down a strip of grid rows with some of the channels, and through all grids in each row. Its panel is a
// ring of the panel.row_span rows that a grid row reads, each packed once: row r of the panel lies at r % row_span.
struct DepthwiseParams {
  Operand operand;
  Result result;
  Panel panel;
  int64_t row_advance, column_advance;  // of the panel, for a grid row and column
  const DepthwiseGrid* grids;
  int64_t grid_count, height;           // of the highest
  int64_t strip_images, strip_rows;
  int64_t image_strips, row_strips;
  int64_t splits;                       // of the channels' tiles over tasks
  void* workspace;                      // for each worker: tap offsets, a grid row's sums, the panel, the tiles' sums
  int64_t workspace_stride, sums_offset, panel_offset, states_offset;
};

// dw in the order of packed weights. Part i sums the i-th of equal shares of all images' rows of draw.
struct DepthwiseWgradParams {
  Operand operand, draw;
  Panel panel, draw_panel;              // a ring as above; one row
  int64_t row_advance, column_advance;
  int64_t filter_rows, filter_columns, row_dilation, column_dilation;
  int64_t parts, splits;                // tasks = parts * splits
  void* workspace;                      // for each worker: pixel offsets, the operand's panel, draw's panel
  int64_t workspace_stride, operand_offset, draw_offset;
  void* sums;                           // [parts][sums_stride] acc
  int64_t sums_stride;
};

// dw, in the order of packed weights, summed over strips of pixels: part / splits as the strips, the column tiles.
struct WgradParams {
  Operand operand, draw;
  Panel panel, draw_panel;
  int64_t row_advance, column_advance;  // panel rows and columns of the operand for one of draw
  const int64_t* offsets;               // [groups] of the operand's panel
  int64_t groups, depth;
  int64_t strip_images, strip_rows;     // rows of draw
  int64_t image_strips, row_strips;
  int64_t parts, splits;                // workers = parts * splits
  void* workspace;                      // for each worker: row offsets, the operand's panel, draw's panel
  int64_t workspace_stride, operand_offset, draw_offset;
  void* sums;                           // [parts][sums_stride] acc
  int64_t sums_stride;
};

struct UnpackWeightsParams {
  PackWeightsParams layout;
  const void* sums;
  int64_t sums_stride, parts;
  void* weights;
};

// Winograd F(4x4, 3x3): tiles of 4x4 output pixels, each from 6x6 of the input, in 36 places ("xi").
constexpr int64_t kWinogradTile = 4, kWinogradInput = 6, kWinogradPlaces = 36;

// Transformed tiles [places][blocks][tiles][kBlock].
struct WinogradTiles {
  void* data;
  int64_t place_stride, block_stride;
};

struct TileRows {
  int64_t per_image;  // tile rows of an image
  int64_t columns;    // tiles in a row
  int64_t blocks;     // all images' tile rows are cut into: what is transformed before it is multiplied
};

struct WinogradParams {
  Operand operand;
  Panel panel;                // of one image's tile rows in a block
  Result result;              // one part for each block
  TileRows rows;
  int64_t height, width;      // of the result
  PackWeightsParams weights;
  const void* transformed;    // [column tiles][places][channels][columns]; null: transformed in each task
  int64_t weights_stride;     // elements between places of them
  WinogradTiles tiles;        // of the block being worked on; data null: each worker's own
  bool shared;                // tiles
  int64_t workers;
  int64_t block;              // the one that tiles holds
  int64_t products_stride;    // elements between places of the products
  void* workspace;
  int64_t workspace_stride, panel_offset, products_offset, weights_offset, tiles_offset;
};

struct WinogradWgradParams {
  Operand operand, draw;
  Panel panel, draw_panel;
  TileRows rows;
  WinogradTiles tiles, draw_tiles;  // data null: each worker's own
  int64_t block;                    // the one that tiles holds
  int64_t parts;                    // of the blocks over workers
  int64_t squares_across;           // of a task on a shared block, and as many downwards
  void* workspace;
  int64_t workspace_stride, panel_offset, tiles_offset, draw_tiles_offset, sums_offset;
  void* sums;                       // [parts][sums_stride], in the order of packed weights; null: written at once
  int64_t sums_stride;
  bool last;                        // block
  PackWeightsParams layout;
  void* weights;
};

}  // namespace resnet_fused::cpu
