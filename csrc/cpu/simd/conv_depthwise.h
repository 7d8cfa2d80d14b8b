// Depthwise convolutions: lanes are channels in the operand too. Few multiply-adds are done with an element, so that each
// is read from memory once, with the prologue: a task goes down its rows with a ring of as many as a result needs.

// Some of the channels' tiles: packed by one task, which nobody else reads.
template <typename A>
struct DepthwiseChannels {
  static constexpr int64_t kColumns = kMicroColumns<A>;
  int64_t first, last;  // tiles

  RF_MEMBER Operand of(const Operand& whole) const {
    Operand own = whole;
    own.first += first * kColumns;
    own.channels = minimum(last * kColumns, whole.channels) - first * kColumns;
    return own;
  }
  RF_MEMBER Panel of(const Panel& whole) const {
    Panel own = whole;
    own.blocks = cut_count((last - first) * kColumns, kBlock);
    return own;
  }
  // Where tile j's channels are in such a panel.
  RF_MEMBER int64_t place(const Panel& panel, int64_t j) const {
    int64_t channel = (j - first) * kColumns;
    return channel / kBlock * panel.block_stride + channel % kBlock;
  }
};

template <typename A>
RF_INLINE DepthwiseChannels<A> depthwise_channels(int64_t channels, int64_t splits, int64_t split) {
  int64_t tiles = cut_count(channels, kMicroColumns<A>);
  return {cut_begin(tiles, splits, split), cut_begin(tiles, splits, split + 1)};
}

// The ring of an image's panel rows.
template <typename T>
struct DepthwiseRing {
  const Operand& operand;
  const Panel& panel;
  Acc<T>* data;
  int64_t image, packed;  // the rows before this one are there, or no longer needed

  // Offset of a panel row.
  RF_MEMBER int64_t row(int64_t r) const {
    return r % panel.row_span * panel.row_stride;
  }
  // From now on rows [first, first + row_span) are needed.
  RF_MEMBER void move_to(int64_t first) {
    for (packed = packed > first ? packed : first; packed < first + panel.row_span; ++packed) {
      pack_operand<T>(operand, panel, image, 1, packed, 1, data + row(packed));
    }
  }
};

template <typename T>
void conv_depthwise(const DepthwiseParams& p, int64_t worker, int64_t task) {
  using A = Acc<T>;
  constexpr int64_t kColumns = kMicroColumns<A>;
  int64_t strip = task / p.splits, first_row = strip % p.row_strips * p.strip_rows;
  int64_t first_image = strip / p.row_strips * p.strip_images;
  int64_t images = minimum(p.strip_images, p.operand.images - first_image);
  int64_t rows = minimum(p.strip_rows, p.height - first_row);
  char* memory = (char*)p.workspace + worker * p.workspace_stride;
  int64_t* offsets = (int64_t*)memory;
  A* sums = (A*)(memory + p.sums_offset);
  A* data = (A*)(memory + p.panel_offset);
  FinishState<A>* states = (FinishState<A>*)(memory + p.states_offset);
  const auto channels = depthwise_channels<A>(p.result.channels, p.splits, task % p.splits);
  const Operand operand = channels.of(p.operand);
  const Panel panel = channels.of(p.panel);
  FinishFunction<T> finish = finish_function<T>(p.result);
  MicroTile<A> t{};
  t.row = p.column_advance * kBlock;
  t.second = panel.block_stride;
  t.offsets = offsets;
  t.depth = 1;
  t.b_step = t.c_row = kColumns;
  t.b_second = kLanes<A>;
  for (int64_t j = channels.first; j < channels.last; ++j) {
    states[j - channels.first].started = false;
  }
  for (int64_t image = first_image; image < first_image + images; ++image) {
    DepthwiseRing<T> ring{operand, panel, data, image, 0};
    for (int64_t row = first_row; row < first_row + rows; ++row) {
      ring.move_to(row * p.row_advance);
      for (int64_t i = 0; i < p.grid_count; ++i) {
        const DepthwiseGrid& grid = p.grids[i];
        if (row >= grid.height) {
          continue;
        }
        for (int64_t tap = 0; tap < grid.tap_count; ++tap) {
          offsets[tap] = ring.row(row * p.row_advance + grid.taps[tap].row) + grid.taps[tap].column;
        }
        t.groups = grid.tap_count;
        const Cuts cuts(grid.width);
        int64_t line = (image * p.result.height + grid.y0 + row * grid.y_step) * p.result.width + grid.x0;
        for (int64_t j = channels.first; j < channels.last; ++j) {
          const A* source = data + channels.place(panel, j);
          t.b = (const A*)grid.weights + j * grid.tap_count * kColumns;
          for (int64_t tile = 0; tile < cuts.count; ++tile) {
            int64_t begin = cuts.begin(tile);
            t.c = sums + begin * kColumns;
            prefetch_run<T>(p.result, {cuts.rows(tile), line + begin * grid.x_step, grid.x_step}, j * kColumns);
            run_rows<A, true>(cuts.rows(tile), t, source + begin * t.row);
          }
          finish(p.result, states[j - channels.first], sums, kColumns, {grid.width, line, grid.x_step}, j * kColumns);
        }
      }
    }
  }
  for (int64_t j = channels.first; j < channels.last; ++j) {
    flush(p.result, states[j - channels.first], strip, images * rows * p.grids[0].width, j * kColumns);
  }
}

template <typename T>
void depthwise_wgrad(const DepthwiseWgradParams& p, int64_t worker, int64_t task) {
  using A = Acc<T>;
  constexpr int64_t kColumns = kMicroColumns<A>;
  int64_t part = task / p.splits;
  char* memory = (char*)p.workspace + worker * p.workspace_stride;
  A* data = (A*)memory;
  A* draw_data = (A*)(memory + p.draw_offset);
  A* sums = (A*)p.sums + part * p.sums_stride;
  const auto channels = depthwise_channels<A>(p.draw.channels, p.splits, task % p.splits);
  const Operand operand = channels.of(p.operand), draw = channels.of(p.draw);
  const Panel panel = channels.of(p.panel), draw_panel = channels.of(p.draw_panel);
  const int64_t no_offset = 0;
  MicroTile<A> t{};
  t.row = p.column_dilation * kBlock;
  t.step = p.column_advance * kBlock;
  t.second = panel.block_stride;
  t.offsets = &no_offset;
  t.groups = 1;
  t.depth = p.draw.width;
  t.b_step = kBlock;
  t.b_second = kColumns > kBlock ? draw_panel.block_stride : kLanes<A>;
  t.c_row = kColumns;
  const Cuts cuts(p.filter_columns);
  int64_t lines = p.draw.images * p.draw.height, line = cut_begin(lines, p.parts, part);
  DepthwiseRing<T> ring{operand, panel, data, -1, 0};
  for (int64_t end = cut_begin(lines, p.parts, part + 1); line < end; ++line, t.accumulate = true) {
    int64_t image = line / p.draw.height, row = line % p.draw.height;
    if (image != ring.image) {
      ring.image = image;
      ring.packed = 0;
    }
    ring.move_to(row * p.row_advance);
    pack_operand<T>(draw, draw_panel, image, 1, row, 1, draw_data);
    for (int64_t j = channels.first; j < channels.last; ++j) {
      t.b = draw_data + channels.place(draw_panel, j);
      for (int64_t r = 0; r < p.filter_rows; ++r) {
        const A* source = data + channels.place(panel, j) + ring.row(row * p.row_advance + r * p.row_dilation);
        A* target = sums + (j * p.filter_rows + r) * p.filter_columns * kColumns;
        for (int64_t tile = 0; tile < cuts.count; ++tile) {
          t.c = target + cuts.begin(tile) * kColumns;
          run_rows<A, true>(cuts.rows(tile), t, source + cuts.begin(tile) * t.row);
        }
      }
    }
  }
}
