// Convolution as an implicit matrix product: a strip of the input is packed with its prologue, and every tile of output
// pixels reads its rows from the panel at offsets that the filter's taps give.

constexpr int64_t kFewPixelTiles = 8;

// The pixels of a strip, by tiles of at most kMicroRows, all with the same weights.
template <typename T>
struct DirectStrip {
  using A = Acc<T>;
  const DirectParams& p;
  const A* panel;
  A* tile;  // [kMicroRows][kMicroColumns]
  int64_t image, row, images, rows;
  FinishFunction<T> finish;
  Ahead& ahead;

  RF_MEMBER int64_t line(int64_t q) const {  // of the panel
    return q / rows * p.panel.image_stride + q % rows * p.grid.row_advance * p.panel.row_stride;
  }
  RF_MEMBER Run run(int64_t q, int64_t column, int64_t count) const {
    int64_t y = p.grid.y0 + (row + q % rows) * p.grid.y_step, x = p.grid.x0 + column * p.grid.x_step;
    return {count, ((image + q / rows) * p.result.height + y) * p.result.width + x, p.grid.x_step};
  }

  RF_MEMBER void multiply(MicroTile<A>& t, FinishState<A>* states, int rows_of_tile, int64_t first, int64_t last,
                          Run run, Run second) const {
    constexpr int64_t kColumns = kMicroColumns<A>;
    for (int64_t j = first; j < last; ++j) {
      t.b = (const A*)p.grid.weights + j * p.grid.groups * p.grid.depth * kColumns;
      prefetch_run<T>(p.result, run, j * kColumns);
      prefetch_run<T>(p.result, second, j * kColumns);
      ahead.next(t);
      run_micro_kernel<A, kMicroRows>(rows_of_tile, t);
      finish(p.result, states[j], tile, kColumns, run, j * kColumns);
      if (second.rows > 0) {
        finish(p.result, states[j], tile + run.rows * kColumns, kColumns, second, j * kColumns);
      }
    }
  }

  // All tiles of pixels with the column tiles [first, last).
  RF_MEMBER void multiply_all(MicroTile<A>& t, FinishState<A>* states, int64_t first, int64_t last) const {
    int64_t lines = images * rows, width = p.grid.width, q = 0;
    if (2 * width <= kMicroRows) {  // two narrow lines fill a tile
      for (; q + 2 <= lines; q += 2) {
        t.a[0] = panel + line(q);
        t.a[1] = panel + line(q + 1);
        multiply(t, states, 2 * width, first, last, run(q, 0, width), run(q + 1, 0, width));
      }
    }
    int64_t cuts = cut_count(width, kMicroRows);
    for (; q < lines; ++q) {
      for (int64_t i = 0; i < cuts; ++i) {
        int64_t begin = cut_begin(width, cuts, i), count = cut_begin(width, cuts, i + 1) - begin;
        t.a[0] = panel + line(q) + begin * t.row;
        t.a[1] = t.a[0] + (count + 1) / 2 * t.row;
        multiply(t, states, count, first, last, run(q, begin, count), {});
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
  FinishState<A>* states = (FinishState<A>*)((char*)tile + p.states_offset);
  if (p.grid.groups > 0) {
    int64_t panel_rows = (rows - 1) * p.grid.row_advance + p.panel.row_span;
    pack_operand<T>(p.operand, p.panel, image, images, row * p.grid.row_advance, panel_rows, panel);
  }
  Ahead ahead;
  int64_t tiles_of_pixels = images * rows * cut_count(p.grid.width, kMicroRows);
  int64_t later = strip + p.workers;
  if (p.grid.groups > 0 && later < p.image_strips * p.row_strips) {
    ahead.add(p.operand, sizeof(T), later / p.row_strips * p.strip_images, p.strip_images,
              later % p.row_strips * p.strip_rows * p.grid.row_advance * p.panel.row_step,
              p.strip_rows * p.grid.row_advance * p.panel.row_step);
    ahead.spread(cut_count(p.result.channels, kColumns) * tiles_of_pixels * p.grid.groups);
  }
  DirectStrip<T> strip_tiles{p, panel, tile, image, row, images, rows, finish_function<T>(p.result), ahead};
  MicroTile<A> t{{}, p.grid.column_advance * p.panel.column_stride, 1, p.grid.offsets, p.grid.groups, p.grid.depth,
                 nullptr, kColumns, kLanes<A>, tile, kColumns, false};
  int64_t tiles = cut_count(p.result.channels, kColumns), last = cut_begin(tiles, p.splits, split + 1);
  int64_t first = cut_begin(tiles, p.splits, split);
  for (int64_t j = first; j < last; ++j) {
    states[j].started = false;
  }
  if (p.pixels_first) {
    strip_tiles.multiply_all(t, states, first, last);
  } else {
    int64_t tile_bytes = p.grid.groups * p.grid.depth * kColumns * sizeof(A);
    for (int64_t j = first; j < last; ++j) {
      if (tiles_of_pixels <= kFewPixelTiles && j + 1 < last) {  // too few to wait for the weights of each
        ahead = Ahead();
        ahead.add((const char*)p.grid.weights + (j + 1) * tile_bytes, tile_bytes);
        ahead.spread(tiles_of_pixels * p.grid.groups);
      }
      strip_tiles.multiply_all(t, states, j, j + 1);
    }
  }
  for (int64_t j = first; j < last; ++j) {
    flush(p.result, states[j], p.first_part + strip, images * rows * p.grid.width, j * kColumns);
  }
}
