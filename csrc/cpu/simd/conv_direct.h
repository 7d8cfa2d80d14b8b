// Convolution as an implicit matrix product: a strip of the input is packed with its prologue, and every tile of output
// pixels reads its rows from the panel at offsets that the filter's taps give.

// The pixels of a strip, by tiles of at most kMicroRows, all with the same weights.
template <typename T>
struct DirectStrip {
  using A = Acc<T>;
  const DirectParams& p;
  const A* panel;
  A* tile;  // [kMicroRows][kMicroColumns]
  int64_t image, row, images, rows;
  FinishFunction<T> finish;

  RF_MEMBER int64_t line(int64_t q) const {  // of the panel
    return q / rows * p.panel.image_stride + q % rows * p.grid.row_advance * p.panel.row_stride;
  }
  RF_MEMBER Run run(int64_t q, int64_t column, int64_t count) const {
    int64_t y = p.grid.y0 + (row + q % rows) * p.grid.y_step, x = p.grid.x0 + column * p.grid.x_step;
    return {count, ((image + q / rows) * p.result.height + y) * p.result.width + x, p.grid.x_step};
  }

  RF_MEMBER void column_tile(MicroTile<A>& t, FinishState<A>& state, int64_t column) const {
    int64_t lines = images * rows, width = p.grid.width, q = 0;
    if (2 * width <= kMicroRows) {  // two narrow lines fill a tile
      for (; q + 2 <= lines; q += 2) {
        t.a[0] = panel + line(q);
        t.a[1] = panel + line(q + 1);
        run_micro_kernel<A, kMicroRows>(2 * width, t);
        finish(p.result, state, tile, t.c_row, run(q, 0, width), column);
        finish(p.result, state, tile + width * t.c_row, t.c_row, run(q + 1, 0, width), column);
      }
    }
    int64_t cuts = cut_count(width, kMicroRows);
    for (; q < lines; ++q) {
      for (int64_t i = 0; i < cuts; ++i) {
        int64_t begin = cut_begin(width, cuts, i), count = cut_begin(width, cuts, i + 1) - begin;
        run_rows<A>(count, t, panel + line(q) + begin * t.row);
        finish(p.result, state, tile, t.c_row, run(q, begin, count), column);
      }
    }
  }
};

template <typename T>
void conv_direct(const DirectParams& p, int64_t worker, int64_t task) {
  using A = Acc<T>;
  constexpr int64_t kColumns = kMicroColumns<A>;
  int64_t strip = task / p.splits, split = task % p.splits;
  int64_t image = strip / p.row_strips * p.strip_images, row = strip % p.row_strips * p.strip_rows;
  int64_t images = minimum(p.strip_images, p.operand.images - image), rows = minimum(p.strip_rows, p.grid.height - row);
  A* tile = (A*)((char*)p.workspace + worker * p.workspace_stride);
  A* panel = tile + kMicroRows * kColumns;
  if (p.grid.groups > 0) {
    int64_t panel_rows = (rows - 1) * p.grid.row_advance + p.panel.row_span;
    pack_operand<T>(p.operand, p.panel, image, images, row * p.grid.row_advance, panel_rows, panel);
  }
  DirectStrip<T> strip_tiles{p, panel, tile, image, row, images, rows, finish_function<T>(p.result)};
  MicroTile<A> t{{}, p.grid.column_advance * p.panel.column_stride, 1, p.grid.offsets, p.grid.groups, p.grid.depth,
                 nullptr, kColumns, kLanes<A>, tile, kColumns, false};
  int64_t tiles = cut_count(p.result.channels, kColumns), last = cut_begin(tiles, p.splits, split + 1);
  FinishState<A> state;
  for (int64_t j = cut_begin(tiles, p.splits, split); j < last; ++j) {
    t.b = (const A*)p.grid.weights + j * p.grid.groups * p.grid.depth * kColumns;
    state.started = false;
    strip_tiles.column_tile(t, state, j * kColumns);
    flush(p.result, state, p.first_part + strip, images * rows * p.grid.width, j * kColumns);
  }
  if (p.result.stream) {
    end_stream();
  }
}
