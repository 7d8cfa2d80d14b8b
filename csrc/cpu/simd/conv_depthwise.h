// Depthwise convolutions: lanes are channels in the operand too. Few multiply-adds are done with an element, so that each
// is read from memory once, with the prologue: a task goes down its rows with a ring of as many as a result needs.

// A tile of sums in registers, all channel by channel:
//     c[i][j] (+)= sum over q < count of a[offsets[q] + i * row][j] * b[q][j]
// q runs over a filter's taps and i over pixels; or for gradients of weights q over pixels and i over taps.
template <typename A>
struct ChannelTile {
  const A* a;
  int64_t row, second;     // from i to i + 1, and from the first vector to the second where a block holds one
  const int64_t* offsets;
  int64_t count;
  const A* b;
  int64_t b_step, b_second;
  A* c;                    // [rows][kMicroColumns]
  bool accumulate;
};

template <typename A, int M>
__attribute__((noinline)) void channel_kernel(const ChannelTile<A>& t) {
  constexpr int L = kLanes<A>;
  using V = Vec<A, L>;
  V sums[M][kVectors] = {};
  const A* b = t.b;
  const int64_t row = t.row, second = kMicroColumns<A> > kBlock ? t.second : L;
  for (int64_t q = 0; q < t.count; ++q, b += t.b_step) {
    const A* a = t.a + t.offsets[q];
    V b0 = load<L>(b), b1 = load<L>(b + t.b_second);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i, a += row) {
      sums[i][0] = fma(load<L>(a), b0, sums[i][0]);
      sums[i][1] = fma(load<L>(a + second), b1, sums[i][1]);
    }
  }
  A* c = t.c;
  const bool accumulate = t.accumulate;
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i, c += kMicroColumns<A>) {
    store<L>(c, accumulate ? sums[i][0] + load<L>(c) : sums[i][0]);
    store<L>(c + L, accumulate ? sums[i][1] + load<L>(c + L) : sums[i][1]);
  }
}

template <typename A, int M = kMicroRows>
RF_INLINE void run_channel_kernel(int rows, const ChannelTile<A>& t) {
  if constexpr (M > 0) {
    if (rows == M) {
      channel_kernel<A, M>(t);
    } else {
      run_channel_kernel<A, M - 1>(rows, t);
    }
  }
}

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
  int64_t image, packed;  // the rows before `packed` are there, or no longer needed

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
  // Brings some columns of a column tile of the next rows, which are to be packed after these, into the second-level
  // cache: packing waits for memory, multiplying does not.
  RF_MEMBER void prefetch(int64_t rows, int64_t begin, int64_t end, int64_t column) const {
    const void* tensors[] = {operand.x, operand.raw, operand.out};
    for (int64_t r = packed; r < packed + rows; ++r) {
      int64_t y = panel.first_row + r * panel.row_step;
      if (y < 0 || y >= operand.height) {
        continue;
      }
      int64_t first = ((image * operand.height + y) * operand.width + begin) * operand.pitch + operand.first + column;
      for (const void* tensor : tensors) {
        for (int64_t x = 0; tensor && x < end - begin; ++x) {
          __builtin_prefetch((const T*)tensor + first + x * operand.pitch, 0, 2);
        }
      }
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
  ChannelTile<A> t{};
  t.row = p.column_advance * kBlock;
  t.second = panel.block_stride;
  t.offsets = offsets;
  t.b_step = kColumns;
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
        t.count = grid.tap_count;
        const Cuts cuts(grid.width);
        int64_t line = (image * p.result.height + grid.y0 + row * grid.y_step) * p.result.width + grid.x0;
        for (int64_t j = channels.first; j < channels.last; ++j) {
          const A* source = data + channels.place(panel, j);
          t.b = (const A*)grid.weights + j * grid.tap_count * kColumns;
          for (int64_t tile = 0; tile < cuts.count; ++tile) {
            int64_t begin = cuts.begin(tile), width = p.operand.width;
            if (j + 1 < channels.last) {
              Run later{cuts.rows(tile), line + begin * grid.x_step, grid.x_step};
              prefetch_run<T>(p.result, later, (j + 1) * kColumns);
            }
            if (i == 0) {
              ring.prefetch(p.row_advance, width * tile / cuts.count, width * (tile + 1) / cuts.count,
                            (j - channels.first) * kColumns);
            }
            t.a = source + begin * t.row;
            t.c = sums + begin * kColumns;
            run_channel_kernel<A>(cuts.rows(tile), t);
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
  int64_t* pixels = (int64_t*)memory;
  A* data = (A*)(memory + p.operand_offset);
  A* draw_data = (A*)(memory + p.draw_offset);
  A* sums = (A*)p.sums + part * p.sums_stride;
  const auto channels = depthwise_channels<A>(p.draw.channels, p.splits, task % p.splits);
  const Operand operand = channels.of(p.operand), draw = channels.of(p.draw);
  const Panel panel = channels.of(p.panel), draw_panel = channels.of(p.draw_panel);
  for (int64_t x = 0; x < p.draw.width; ++x) {
    pixels[x] = x * p.column_advance * kBlock;
  }
  ChannelTile<A> t{};
  t.row = p.column_dilation * kBlock;
  t.second = panel.block_stride;
  t.offsets = pixels;
  t.count = p.draw.width;
  t.b_step = kBlock;
  t.b_second = kColumns > kBlock ? draw_panel.block_stride : kLanes<A>;
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
          t.a = source + cuts.begin(tile) * t.row;
          t.c = target + cuts.begin(tile) * kColumns;
          run_channel_kernel<A>(cuts.rows(tile), t);
        }
      }
    }
  }
}
