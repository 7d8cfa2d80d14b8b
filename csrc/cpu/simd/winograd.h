// Winograd convolution: tiles of the input are transformed, multiplied by transformed weights, and transformed back into
// the epilogue. A block of tile rows is worked on at a time.

constexpr int64_t kChunkTiles = 14;  // columns transformed at a time: their intermediate results stay in the L1 cache

struct BlockRows {
  int64_t first, count;  // tile rows
  RF_MEMBER BlockRows(const TileRows& t, int64_t images, int64_t block)
      : first(cut_begin(images * t.per_image, t.blocks, block)),
        count(cut_begin(images * t.per_image, t.blocks, block + 1) - first) {}
};

// Calls visit(image, tile row within it, tile rows, first tile of them within the block) for each image's part.
template <typename Visit>
RF_INLINE void each_image(const TileRows& t, const BlockRows& block, Visit visit) {
  int64_t row = block.first, end = block.first + block.count;
  while (row < end) {
    int64_t image = row / t.per_image, next = minimum((image + 1) * t.per_image, end);
    visit(image, row - image * t.per_image, next - row, (row - block.first) * t.columns);
    row = next;
  }
}

// What a block packs of an operand.
RF_INLINE void add_block(Ahead& ahead, const Operand& o, int64_t element, const TileRows& t, int64_t block) {
  if (block < t.blocks) {
    BlockRows rows(t, o.images, block);
    int64_t image = rows.first / t.per_image, row = rows.first % t.per_image;
    int64_t images = (row + rows.count - 1) / t.per_image + 1;
    ahead.add(o, element, image, images, row * kWinogradTile,
              (rows.count - (images - 1) * t.per_image) * kWinogradTile);
  }
}

// The tiles of one tile row, IN x IN pixels each in steps of kWinogradTile, in all places: transform both ways.
template <typename A, int IN, typename Transform>
RF_INLINE void transform_tile_row(const A* panel, int64_t row_stride, int64_t tile_columns, A* tiles,
                                  int64_t place_stride, Transform transform) {
  constexpr int L = kLanes<A> < kBlock ? kLanes<A> : kBlock;
  constexpr int64_t kColumns = kChunkTiles * kWinogradTile + kWinogradInput - kWinogradTile;
  using V = Vec<A, L>;
  alignas(64) A half[kWinogradInput][kColumns][L];
  for (int64_t lane = 0; lane < kBlock; lane += L) {
    for (int64_t first = 0; first < tile_columns; first += kChunkTiles) {
      int64_t count = minimum(kChunkTiles, tile_columns - first);
      int64_t columns = count * kWinogradTile + (IN - kWinogradTile);
      const A* source = panel + first * kWinogradTile * kBlock + lane;
      for (int64_t x = 0; x < columns; ++x, source += kBlock) {
        V d[IN], o[kWinogradInput];
#pragma GCC unroll 6
        for (int i = 0; i < IN; ++i) {
          d[i] = load<L>(source + i * row_stride);
        }
        transform(d, o);
#pragma GCC unroll 6
        for (int i = 0; i < kWinogradInput; ++i) {
          store<L>(half[i][x], o[i]);
        }
      }
      A* target = tiles + first * kBlock + lane;
      for (int64_t t = 0; t < count; ++t, target += kBlock) {
        for (int i = 0; i < kWinogradInput; ++i) {
          V d[IN], o[kWinogradInput];
#pragma GCC unroll 6
          for (int j = 0; j < IN; ++j) {
            d[j] = load<L>(half[i][t * kWinogradTile + j]);
          }
          transform(d, o);
#pragma GCC unroll 6
          for (int j = 0; j < kWinogradInput; ++j) {
            store<L>(target + (i * kWinogradInput + j) * place_stride, o[j]);
          }
        }
      }
    }
  }
}

// Packs the operand of a block and transforms it: 6x6 tiles by B, or with GRADIENT 4x4 tiles by A.
template <typename T, bool GRADIENT>
void transform_block(const Operand& operand, const Panel& panel, const TileRows& rows, int64_t block, Acc<T>* packed,
                     const WinogradTiles& tiles) {
  using A = Acc<T>;
  constexpr int kIn = GRADIENT ? kWinogradTile : kWinogradInput;
  each_image(rows, BlockRows(rows, operand.images, block),
             [&](int64_t image, int64_t row, int64_t count, int64_t first) __attribute__((always_inline)) {
    int64_t height = (count - 1) * kWinogradTile + kIn;
    pack_operand<T>(operand, panel, image, 1, row * kWinogradTile, height, packed);
    for (int64_t b = 0; b < panel.blocks; ++b) {
      for (int64_t r = 0; r < count; ++r) {
        const A* source = packed + b * panel.block_stride + r * kWinogradTile * panel.row_stride;
        A* target = (A*)tiles.data + b * tiles.block_stride + (first + r * rows.columns) * kBlock;
        transform_tile_row<A, kIn>(source, panel.row_stride, rows.columns, target, tiles.place_stride,
                                   [](const auto& d, auto& o) __attribute__((always_inline)) {
          if constexpr (GRADIENT) {
            gradient_transform<A>(d, o);
          } else {
            input_transform<A>(d, o);
          }
        });
      }
    }
  });
}

// A column tile's weights to u[place][channel][column].
template <typename T>
void transform_weights(const PackWeightsParams& p, int64_t tile, int64_t blocks, Acc<T>* u, int64_t place_stride) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  constexpr int64_t kTap = kBlock * kMicroColumns<A>;
  using V = Vec<A, L>;
  alignas(64) A w[9 * kTap];
  for (int64_t b = 0; b < blocks; ++b) {
    pack_square<T>(p, tile, b, w);
    for (int64_t i = 0; i < kTap; i += L) {
      V half[3][6];
#pragma GCC unroll 3
      for (int c = 0; c < 3; ++c) {
        V g[3] = {load<L>(w + i + c * kTap), load<L>(w + i + (3 + c) * kTap), load<L>(w + i + (6 + c) * kTap)};
        weight_transform<A>(g, half[c]);
      }
      A* target = u + b * kTap + i;
#pragma GCC unroll 6
      for (int r = 0; r < 6; ++r) {
        V g[3] = {half[0][r], half[1][r], half[2][r]}, o[6];
        weight_transform<A>(g, o);
#pragma GCC unroll 6
        for (int c = 0; c < 6; ++c) {
          store<L>(target + (r * 6 + c) * place_stride, o[c]);
        }
      }
    }
  }
}

// Where they are transformed before the blocks of tile rows.
template <typename T>
void winograd_weights(const WinogradParams& p, int64_t, int64_t tile) {
  using A = Acc<T>;
  A* transformed = (A*)p.transformed + tile * kWinogradPlaces * p.weights_stride;
  transform_weights<T>(p.weights, tile, p.panel.blocks, transformed, p.weights_stride);
}

template <typename A>
struct WinogradMemory {
  A *panel, *products, *weights;
  WinogradTiles tiles;
  RF_MEMBER WinogradMemory(const WinogradParams& p, int64_t worker) : tiles(p.tiles) {
    char* memory = (char*)p.workspace + worker * p.workspace_stride;
    panel = (A*)(memory + p.panel_offset);
    products = (A*)(memory + p.products_offset);
    weights = (A*)(memory + p.weights_offset);
    if (!tiles.data) {
      tiles.data = memory + p.tiles_offset;
    }
  }
};

constexpr int64_t kFewTiles = 3;     // of kMicroRows
constexpr int64_t kMostBlocks = 64;  // of channels summed at a time

// products[place][tile][column] of one column tile.
template <typename T>
void multiply(const WinogradParams& p, const WinogradMemory<Acc<T>>& m, int64_t tile, int64_t count, Ahead& ahead) {
  using A = Acc<T>;
  constexpr int64_t kColumns = kMicroColumns<A>;
  int64_t blocks = p.panel.blocks, offsets[kMostBlocks];
  MicroTile<A> t{};
  t.row = kBlock;
  t.step = 1;
  t.offsets = offsets;
  t.depth = kBlock;
  t.b_step = kColumns;
  t.b_second = kLanes<A>;
  t.c_row = kColumns;
  const Cuts cuts(count);
  const A* transformed = (const A*)p.transformed + tile * kWinogradPlaces * p.weights_stride;
  if (!p.transformed) {
    transform_weights<T>(p.weights, tile, blocks, m.weights, p.weights_stride);
    transformed = m.weights;
  }
  for (int64_t first = 0; first < blocks; first += kMostBlocks) {
    int64_t now = minimum(kMostBlocks, blocks - first);
    const A* weights = transformed + first * kBlock * kColumns;
    for (int64_t b = 0; b < now; ++b) {
      offsets[b] = (first + b) * m.tiles.block_stride;
    }
    t.groups = now;
    t.accumulate = first > 0;
    // What no cache nearer than the last holds: of few tiles the weights, else the next tile's operand.
    bool weights_ahead = p.shared && p.transformed && cuts.count <= kFewTiles;
    int64_t share = weights_ahead ? cut_count(p.weights_stride * sizeof(A) / kLineBytes, now * cuts.count)
                                  : kMicroRows * sizeof(A);
    if (p.shared) {
      t.ahead_lines = weights_ahead ? minimum(share, kMostAhead) : share * kBlock / kLineBytes;
      t.ahead_step = weights_ahead ? t.ahead_lines * kLineBytes : m.tiles.block_stride * sizeof(A);
    }
    for (int64_t place = 0; place < kWinogradPlaces; ++place) {
      const A* input = (const A*)m.tiles.data + place * m.tiles.place_stride;
      t.b = weights + place * p.weights_stride;
      for (int64_t i = 0; i < cuts.count; ++i) {
        int64_t begin = cuts.begin(i);
        if (!p.shared) {
          ahead.next(t);
        } else if (weights_ahead) {
          t.ahead = (const char*)(t.b + p.weights_stride) + i * now * t.ahead_step;
        } else {
          t.ahead = (const char*)(i + 1 < cuts.count ? input + cuts.begin(i + 1) * kBlock
                                                     : input + m.tiles.place_stride);
        }
        t.c = m.products + place * p.products_stride + begin * kColumns;
        run_rows<A>(cuts.rows(i), t, input + begin * kBlock);
      }
    }
  }
}

// The products of up to kOutputTiles tiles of a row, back to rows[4][pixels][column].
constexpr int64_t kOutputTiles = 7;

template <typename A>
RF_INLINE void transform_products(const A* products, int64_t place_stride, int64_t tiles, A* rows, int64_t row_stride) {
  constexpr int L = kLanes<A>;
  constexpr int64_t kColumns = kMicroColumns<A>;
  using V = Vec<A, L>;
  for (int64_t t = 0; t < tiles; ++t) {
    for (int64_t lane = 0; lane < kColumns; lane += L) {
      V half[6][4];
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) {
        V m[6];
#pragma GCC unroll 6
        for (int i = 0; i < 6; ++i) {
          m[i] = load<L>(products + (i * 6 + j) * place_stride + t * kColumns + lane);
        }
        output_transform<A>(m, half[j]);
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        V m[6] = {half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]}, o[4];
        output_transform<A>(m, o);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          store<L>(rows + i * row_stride + (t * 4 + j) * kColumns + lane, o[j]);
        }
      }
    }
  }
}

// A column tile of a block: products, transformed back and finished.
template <typename T>
void multiply_and_finish(const WinogradParams& p, const WinogradMemory<Acc<T>>& m, int64_t block, int64_t tile,
                         Ahead& ahead) {
  using A = Acc<T>;
  constexpr int64_t kColumns = kMicroColumns<A>, kRow = kOutputTiles * kWinogradTile * kColumns;
  BlockRows range(p.rows, p.operand.images, block);
  multiply<T>(p, m, tile, range.count * p.rows.columns, ahead);
  FinishFunction<T> finish = finish_function<T>(p.result);
  FinishState<A> state;
  state.started = false;
  alignas(64) A rows[kWinogradTile * kRow];
  int64_t pixels = 0;
  each_image(p.rows, range, [&](int64_t image, int64_t row, int64_t count, int64_t first) __attribute__((always_inline)) {
    for (int64_t r = 0; r < count; ++r) {
      int64_t y = (row + r) * kWinogradTile, height = minimum(kWinogradTile, p.height - y);
      pixels += height * p.width;
      for (int64_t c = 0; c < p.rows.columns; c += kOutputTiles) {
        int64_t tiles = minimum(kOutputTiles, p.rows.columns - c), x = c * kWinogradTile;
        auto run_of = [&](int64_t i) __attribute__((always_inline)) {
          return Run{minimum(tiles * kWinogradTile, p.width - x), (image * p.height + y + i) * p.width + x, 1};
        };
        for (int64_t i = 0; i < height; ++i) {
          prefetch_run<T>(p.result, run_of(i), tile * kColumns);
        }
        transform_products<A>(m.products + (first + r * p.rows.columns + c) * kColumns, p.products_stride, tiles, rows,
                              kRow);
        for (int64_t i = 0; i < height; ++i) {
          finish(p.result, state, rows + i * kRow, kColumns, run_of(i), tile * kColumns);
        }
      }
    }
  });
  flush(p.result, state, p.result.partial ? block : 0, pixels, tile * kColumns);
}

// A block by one worker.
template <typename T>
void winograd_block(const WinogradParams& p, int64_t worker, int64_t block) {
  using A = Acc<T>;
  WinogradMemory<A> m(p, worker);
  int64_t tiles = cut_count(p.result.channels, kMicroColumns<A>);
  transform_block<T, false>(p.operand, p.panel, p.rows, block, m.panel, m.tiles);
  Ahead ahead;
  add_block(ahead, p.operand, sizeof(T), p.rows, block + p.workers);
  int64_t count = BlockRows(p.rows, p.operand.images, block).count * p.rows.columns;
  ahead.spread(tiles * kWinogradPlaces * cut_count(count, kMicroRows) * p.panel.blocks);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    multiply_and_finish<T>(p, m, block, tile, ahead);
  }
}

// A block by all workers, first its tile rows, then its column tiles.
template <typename T>
void winograd_input(const WinogradParams& p, int64_t worker, int64_t task) {
  using A = Acc<T>;
  WinogradMemory<A> m(p, worker);
  TileRows one = p.rows;
  one.blocks = p.operand.images * p.rows.per_image;
  m.tiles.data = (A*)m.tiles.data + task * p.rows.columns * kBlock;
  int64_t row = BlockRows(p.rows, p.operand.images, p.block).first + task;
  transform_block<T, false>(p.operand, p.panel, one, row, m.panel, m.tiles);
}
template <typename T>
void winograd_output(const WinogradParams& p, int64_t worker, int64_t tile) {
  Ahead none;
  multiply_and_finish<T>(p, WinogradMemory<Acc<T>>(p, worker), p.block, tile, none);
}
