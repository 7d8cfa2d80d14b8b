// Convolution as an implicit matrix product: a strip of the input is packed with its prologue, unless it can be read in
// place, and every tile of output pixels reads its rows from the panel at offsets that the filter's taps give.

constexpr int64_t kFewPixelTiles = 64;

// The pixels of a strip, by tiles of at most kMicroRows, all with the same weights. A line is a row of an image or, where
// they follow each other in the panel and in the result, all of them.
template <typename T>
struct DirectStrip {
  using A = Acc<T>;
  const DirectParams& p;
  const A* panel;
  A* sums;  // [kMicroRows][kMicroColumns], or with chunks [pixels of the strip][kMicroColumns]
  int64_t image, row, images, rows;
  FinishFunction<T> finish;
  Ahead& ahead;
  int64_t lines, width;

  DirectStrip(const DirectParams& p, const A* panel, A* sums, int64_t image, int64_t row, int64_t images, int64_t rows,
              Ahead& ahead)
      : p(p), panel(panel), sums(sums), image(image), row(row), images(images), rows(rows),
        finish(finish_function<T>(p.result)), ahead(ahead), lines(images * rows), width(p.grid.width) {
    int64_t row_stride = p.grid.row_advance * p.panel.row_stride;
    bool panel_follows = row_stride == width * p.grid.column_advance * p.panel.column_stride &&
                         (images == 1 || p.panel.image_stride == rows * row_stride);
    bool result_follows = p.grid.y_step == 1 && p.grid.x_step == 1 && width == p.result.width &&
                          (images == 1 || rows == p.result.height);
    if (panel_follows && result_follows) {
      width *= lines;
      lines = 1;
    }
  }

  // The columns that are taken downwards: what is left of lines a little longer than one or two tiles, which would make
  // all tiles of a line small.
  RF_MEMBER int64_t columns_down() const {
    int64_t left = width % kMicroRows;
    return lines > 1 && width > kMicroRows && width < 3 * kMicroRows && left <= kMicroRows / 3 ? left : 0;
  }
  RF_MEMBER int64_t tiles() const {
    int64_t down = columns_down();
    return lines * cut_count(width - down, kMicroRows) + images * down * cut_count(rows, kMicroRows);
  }
  RF_MEMBER int64_t line(int64_t q) const {  // of the panel
    return q / rows * p.panel.image_stride + q % rows * p.grid.row_advance * p.panel.row_stride;
  }
  RF_MEMBER Run run(int64_t q, int64_t column, int64_t count) const {
    int64_t y = p.grid.y0 + (row + q % rows) * p.grid.y_step, x = p.grid.x0 + column * p.grid.x_step;
    return {count, ((image + q / rows) * p.result.height + y) * p.result.width + x, p.grid.x_step};
  }

  // The lines of the results one tile further: products of few channels are over before memory has answered.
  RF_MEMBER void prefetch_behind(Run run, int64_t j, int64_t first, int64_t last) const {
    if (j + 1 == last) {
      run.pixel += run.rows * run.pixel_step;
      j = first - 1;
    }
    prefetch_run<T>(p.result, run, (j + 1) * kMicroColumns<A>);
  }

  // One tile of pixels, from `pixel` of the strip, with the column tiles [first, last) and t.groups of the products.
  RF_MEMBER void multiply(MicroTile<A>& t, FinishState<A>* states, int64_t first, int64_t last, int64_t group,
                          int64_t pixel, Run run, Run second) const {
    constexpr int64_t kColumns = kMicroColumns<A>;
    bool finished = group + t.groups == p.grid.groups;
    t.c = sums + (t.groups < p.grid.groups ? pixel * kColumns : 0);
    for (int64_t j = first; j < last; ++j) {
      t.b = (const A*)p.grid.weights + (j * p.grid.groups + group) * p.grid.depth * kColumns;
      if (finished) {
        prefetch_behind(run, j, first, last);
        prefetch_behind(second, j, first, last);
      }
      ahead.next(t);
      run_micro_kernel<A, kMicroRows>(run.rows + second.rows, t);
      if (finished) {
        finish(p.result, states[j], t.c, kColumns, run, j * kColumns);
        if (second.rows > 0) {
          finish(p.result, states[j], t.c + run.rows * kColumns, kColumns, second, j * kColumns);
        }
      }
    }
  }

  // All tiles of pixels with the column tiles [first, last).
  RF_MEMBER void multiply_all(MicroTile<A>& t, FinishState<A>* states, int64_t first, int64_t last) const {
    const int64_t down = columns_down();
    const Cuts cuts(width - down), pieces(rows);
    for (int64_t group = 0; group < p.grid.groups || group == 0; group += p.chunk) {
      t.offsets = p.grid.offsets + group;
      t.groups = minimum(p.chunk, p.grid.groups - group);
      t.accumulate = group > 0;
      int64_t q = 0, pixel = 0;
      if (2 * width <= kMicroRows) {  // two narrow lines fill a tile
        for (; q + 2 <= lines; q += 2, pixel += 2 * width) {
          t.a[0] = panel + line(q);
          t.a[1] = panel + line(q + 1);
          multiply(t, states, first, last, group, pixel, run(q, 0, width), run(q + 1, 0, width));
        }
      }
      auto tile = [&](const A* a, Run run) __attribute__((always_inline)) {
        t.a[0] = a;
        t.a[1] = a + (run.rows + 1) / 2 * t.row;
        multiply(t, states, first, last, group, pixel, run, {});
        pixel += run.rows;
      };
      for (; q < lines; ++q) {
        for (int64_t i = 0; i < cuts.count; ++i) {
          tile(panel + line(q) + cuts.begin(i) * t.row, run(q, cuts.begin(i), cuts.rows(i)));
        }
      }
      if (down > 0) {
        const int64_t row = t.row;
        t.row = p.grid.row_advance * p.panel.row_stride;
        for (q = 0; q < lines; q += rows) {
          for (int64_t column = width - down; column < width; ++column) {
            for (int64_t i = 0; i < pieces.count; ++i) {
              int64_t first_line = q + pieces.begin(i);
              Run pixels = run(first_line, column, pieces.rows(i));
              pixels.pixel_step = p.grid.y_step * p.result.width;
              tile(panel + line(first_line) + column * row, pixels);
            }
          }
        }
        t.row = row;
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
  char* memory = (char*)p.workspace + worker * p.workspace_stride;
  A* packed = (A*)(memory + p.panel_offset);
  const A* panel = packed;
  FinishState<A>* states = (FinishState<A>*)(memory + p.states_offset);
  if (p.in_place) {
    panel = (const A*)p.operand.x + p.operand.first + image * p.panel.image_stride + row * p.panel.row_stride;
  } else if (p.grid.groups > 0) {
    int64_t panel_rows = (rows - 1) * p.grid.row_advance + p.panel.row_span;
    pack_operand<T>(p.operand, p.panel, image, images, row * p.grid.row_advance, panel_rows, packed);
  }
  Ahead ahead;
  DirectStrip<T> pixels(p, panel, (A*)memory, image, row, images, rows, ahead);
  int64_t later = strip + p.workers;
  if (p.grid.groups > 0 && later < p.image_strips * p.row_strips) {
    ahead.add(p.operand, sizeof(T), later / p.row_strips * p.strip_images, p.strip_images,
              later % p.row_strips * p.strip_rows * p.grid.row_advance * p.panel.row_step,
              p.strip_rows * p.grid.row_advance * p.panel.row_step);
    ahead.spread(cut_count(p.result.channels, kColumns) * pixels.tiles() * p.grid.groups);
  }
  MicroTile<A> t{};
  t.row = p.grid.column_advance * p.panel.column_stride;
  t.step = 1;
  t.depth = p.grid.depth;
  t.b_step = t.c_row = kColumns;
  t.b_second = kLanes<A>;
  int64_t tiles = cut_count(p.result.channels, kColumns), last = cut_begin(tiles, p.splits, split + 1);
  int64_t first = cut_begin(tiles, p.splits, split);
  for (int64_t j = first; j < last; ++j) {
    states[j].started = false;
  }
  if (p.pixels_first) {
    pixels.multiply_all(t, states, first, last);
  } else {
    int64_t tile_bytes = p.grid.groups * p.grid.depth * kColumns * sizeof(A);
    for (int64_t j = first; j < last; ++j) {
      if (pixels.tiles() <= kFewPixelTiles && j + 1 < last) {  // too few to wait for the weights of each
        ahead = Ahead();
        ahead.add((const char*)p.grid.weights + (j + 1) * tile_bytes, tile_bytes);
        ahead.spread(pixels.tiles() * p.grid.groups);
      }
      pixels.multiply_all(t, states, j, j + 1);
    }
  }
  for (int64_t j = first; j < last; ++j) {
    flush(p.result, states[j], p.first_part + strip, images * rows * p.grid.width, j * kColumns);
  }
}
