// Gradients of the weights by Winograd's products: sums[place][c][k] of transformed operand and gradient over the tiles.

// `count` tiles in equal groups, between which memory can be asked for.
struct TileGroups {
  static constexpr int64_t kMost = 64;
  int64_t count, depth, offsets[kMost];

  TileGroups(int64_t tiles) : count(1), depth(tiles) {
    for (int64_t d = 32; d >= 8 && count == 1; --d) {
      if (tiles % d == 0 && tiles / d <= kMost) {
        count = tiles / d;
        depth = d;
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      offsets[i] = i * depth * kBlock;
    }
  }
};

// What all products of sums over the tiles have in common.
template <typename A>
RF_INLINE MicroTile<A> sums_over(const TileGroups& groups, const WinogradTiles& draw) {
  MicroTile<A> t{};
  t.row = 1;
  t.step = kBlock;
  t.offsets = groups.offsets;
  t.groups = groups.count;
  t.depth = groups.depth;
  t.b_step = kBlock;
  t.b_second = kMicroColumns<A> > kBlock ? draw.block_stride : kLanes<A>;
  t.c_row = kMicroColumns<A>;
  return t;
}

// The sums of one block of channels and one column tile, in one place.
template <typename A>
RF_INLINE void multiply_tiles(MicroTile<A>& t, const WinogradTiles& operand, const WinogradTiles& draw, int64_t block,
                              int64_t tile, int64_t place, A* sums, Ahead& ahead) {
  constexpr int64_t kColumns = kMicroColumns<A>;
  int64_t channel = tile * kColumns;
  t.b = (const A*)draw.data + place * draw.place_stride + channel / kBlock * draw.block_stride + channel % kBlock;
  const A* a = (const A*)operand.data + place * operand.place_stride + block * operand.block_stride;
  const Cuts cuts(kBlock);
  for (int64_t i = 0; i < cuts.count; ++i) {
    t.c = sums + cuts.begin(i) * kColumns;
    ahead.next(t);
    run_rows<A>(cuts.rows(i), t, a + cuts.begin(i));
  }
}

// sums[place][kBlock][column] to weights[tap][kBlock][column].
template <typename A>
void transform_sums(const A* sums, int64_t place_stride, A* weights, bool accumulate) {
  constexpr int L = kLanes<A>;
  constexpr int64_t kTap = kBlock * kMicroColumns<A>;
  using V = Vec<A, L>;
  for (int64_t i = 0; i < kTap; i += L) {
    V half[6][3];
#pragma GCC unroll 6
    for (int c = 0; c < 6; ++c) {
      V s[6];
#pragma GCC unroll 6
      for (int r = 0; r < 6; ++r) {
        s[r] = load<L>(sums + (r * 6 + c) * place_stride + i);
      }
      weight_gradient_transform<A>(s, half[c]);
    }
#pragma GCC unroll 3
    for (int r = 0; r < 3; ++r) {
      V s[6] = {half[0][r], half[1][r], half[2][r], half[3][r], half[4][r], half[5][r]}, o[3];
      weight_gradient_transform<A>(s, o);
#pragma GCC unroll 3
      for (int c = 0; c < 3; ++c) {
        A* target = weights + (r * 3 + c) * kTap + i;
        store<L>(target, accumulate ? load<L>(target) + o[c] : o[c]);
      }
    }
  }
}

template <typename A>
struct WgradMemory {
  A *panel, *sums;
  WinogradTiles tiles, draw_tiles;
  RF_MEMBER WgradMemory(const WinogradWgradParams& p, int64_t worker) : tiles(p.tiles), draw_tiles(p.draw_tiles) {
    char* memory = (char*)p.workspace + worker * p.workspace_stride;
    panel = (A*)(memory + p.panel_offset);
    sums = (A*)(memory + p.sums_offset);
    if (!tiles.data) {
      tiles.data = memory + p.tiles_offset;
      draw_tiles.data = memory + p.draw_tiles_offset;
    }
  }
};

// Each worker its own blocks, with sums of all weights: [place][column tile][block][kBlock][column].
template <typename T>
void winograd_wgrad_blocks(const WinogradWgradParams& p, int64_t worker, int64_t) {
  using A = Acc<T>;
  constexpr int64_t kColumns = kMicroColumns<A>, kSquare = kBlock * kColumns;
  WgradMemory<A> m(p, worker);
  int64_t column_tiles = cut_count(p.draw.channels, kColumns), blocks = p.panel.blocks;
  int64_t place_stride = column_tiles * blocks * kSquare + kBlock;
  int64_t block = cut_begin(p.rows.blocks, p.parts, worker), first = block;
  int64_t end = cut_begin(p.rows.blocks, p.parts, worker + 1);
  for (; block < end; ++block) {
    transform_block<T, false>(p.operand, p.panel, p.rows, block, m.panel, m.tiles);
    transform_block<T, true>(p.draw, p.draw_panel, p.rows, block, m.panel, m.draw_tiles);
    const TileGroups groups(BlockRows(p.rows, p.operand.images, block).count * p.rows.columns);
    Ahead ahead;
    if (block + 1 < end) {
      add_block(ahead, p.operand, sizeof(T), p.rows, block + 1);
      add_block(ahead, p.draw, sizeof(T), p.rows, block + 1);
      ahead.spread(kWinogradPlaces * column_tiles * blocks * Cuts(kBlock).count * groups.count);
    }
    MicroTile<A> t = sums_over<A>(groups, m.draw_tiles);
    t.accumulate = block > first;
    for (int64_t place = 0; place < kWinogradPlaces; ++place) {
      for (int64_t tile = 0; tile < column_tiles; ++tile) {
        for (int64_t b = 0; b < blocks; ++b) {
          multiply_tiles<A>(t, m.tiles, m.draw_tiles, b, tile, place,
                            m.sums + place * place_stride + (tile * blocks + b) * kSquare, ahead);
        }
      }
    }
  }
  A* target = (A*)p.sums + worker * p.sums_stride;
  for (int64_t i = 0; i < column_tiles * blocks; ++i) {
    transform_sums<A>(m.sums + i * kSquare, place_stride, target + i * 9 * kSquare, false);
  }
}

// A block by all workers: first its tile rows, then some squares, of kBlock channels by a column tile, that share their tiles.
template <typename T>
void winograd_wgrad_input(const WinogradWgradParams& p, int64_t worker, int64_t task) {
  using A = Acc<T>;
  WgradMemory<A> m(p, worker);
  TileRows one = p.rows;
  one.blocks = p.operand.images * p.rows.per_image;
  int64_t row = BlockRows(p.rows, p.operand.images, p.block).first + task;
  m.tiles.data = (A*)m.tiles.data + task * p.rows.columns * kBlock;
  m.draw_tiles.data = (A*)m.draw_tiles.data + task * p.rows.columns * kBlock;
  transform_block<T, false>(p.operand, p.panel, one, row, m.panel, m.tiles);
  transform_block<T, true>(p.draw, p.draw_panel, one, row, m.panel, m.draw_tiles);
}
template <typename T>
void winograd_wgrad_output(const WinogradWgradParams& p, int64_t worker, int64_t task) {
  using A = Acc<T>;
  constexpr int64_t kColumns = kMicroColumns<A>, kSquare = kBlock * kColumns;
  WgradMemory<A> m(p, worker);
  int64_t blocks = p.panel.blocks, column_tiles = cut_count(p.draw.channels, kColumns);
  const int64_t across = p.squares_across, tasks = cut_count(blocks, across);
  int64_t first_tile = task / tasks * across, last_tile = minimum(first_tile + across, column_tiles);
  int64_t first_block = task % tasks * across, last_block = minimum(first_block + across, blocks);
  int64_t squares = (last_tile - first_tile) * (last_block - first_block);
  const TileGroups groups(BlockRows(p.rows, p.operand.images, p.block).count * p.rows.columns);
  int64_t bytes = groups.count * groups.depth * kBlock * sizeof(A);
  MicroTile<A> t = sums_over<A>(groups, m.draw_tiles);
  for (int64_t place = 0; place < kWinogradPlaces; ++place) {
    Ahead ahead;
    if (place + 1 < kWinogradPlaces && groups.count > 1) {
      const A* operand = (const A*)m.tiles.data + (place + 1) * m.tiles.place_stride;
      const A* draw = (const A*)m.draw_tiles.data + (place + 1) * m.draw_tiles.place_stride;
      for (int64_t b = first_block; b < last_block; ++b) {
        ahead.add(operand + b * m.tiles.block_stride, bytes);
      }
      for (int64_t c = first_tile * kColumns; c < last_tile * kColumns; c += kBlock) {
        ahead.add(draw + c / kBlock * m.draw_tiles.block_stride, bytes);
      }
      ahead.spread(squares * Cuts(kBlock).count * groups.count);
    }
    A* sums = m.sums + place * kSquare;
    for (int64_t tile = first_tile; tile < last_tile; ++tile) {
      for (int64_t b = first_block; b < last_block; ++b, sums += kWinogradPlaces * kSquare) {
        multiply_tiles<A>(t, m.tiles, m.draw_tiles, b, tile, place, sums, ahead);
      }
    }
  }
  const A* sums = m.sums;
  for (int64_t tile = first_tile; tile < last_tile; ++tile) {
    for (int64_t b = first_block; b < last_block; ++b, sums += kWinogradPlaces * kSquare) {
      int64_t square = tile * blocks + b;
      A* weights = p.sums ? (A*)p.sums + square * 9 * kSquare
                          : m.sums + across * across * kWinogradPlaces * kSquare;
      transform_sums<A>(sums, kSquare, weights, p.block > 0);
      if (p.last) {
        unpack_square<T>(p.layout, tile, b, weights, (T*)p.weights);
      }
    }
  }
}
