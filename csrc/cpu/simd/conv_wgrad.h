// Gradients of the weights: products of two packed strips, summed over their pixels. The sums lie as packed weights do.

// Pixels in a row of products: long enough for what happens once a row not to matter, short enough to read ahead evenly.
constexpr int64_t kLongDepth = 28;

template <typename T>
void conv_wgrad(const WgradParams& p, int64_t worker, int64_t) {
  using A = Acc<T>;
  constexpr int64_t kColumns = kMicroColumns<A>;
  int64_t part = worker / p.splits, split = worker % p.splits;  // of the strips, of the column tiles
  char* memory = (char*)p.workspace + worker * p.workspace_stride;
  int64_t* lines = (int64_t*)memory;  // where the strip's rows begin in the operand's panel
  A* operand = (A*)(memory + p.operand_offset);
  A* draw = (A*)(memory + p.draw_offset);
  A* sums = (A*)p.sums + part * p.sums_stride;

  int64_t tiles = cut_count(p.draw.channels, kColumns);
  int64_t first = cut_begin(tiles, p.splits, split), last = cut_begin(tiles, p.splits, split + 1);
  // This worker packs only its own column tiles' channels of draw.
  Operand own = p.draw;
  own.first += first * kColumns;
  own.channels = minimum(last * kColumns, p.draw.channels) - first * kColumns;
  Panel own_panel = p.draw_panel;
  own_panel.blocks = cut_count(own.channels, kBlock);
  int64_t row_count = p.panel.folded ? p.depth : kBlock;  // of sums to a group
  const Cuts cuts(row_count);
  MicroTile<A> t{};
  t.row = 1;
  t.step = p.column_advance * p.panel.column_stride;
  t.offsets = lines;
  t.b_step = kBlock;
  t.b_second = kColumns > kBlock ? p.draw_panel.block_stride : kLanes<A>;
  t.c_row = kColumns;

  int64_t strips = p.image_strips * p.row_strips, strip = cut_begin(strips, p.parts, part);
  for (int64_t end = cut_begin(strips, p.parts, part + 1); strip < end && first < last; ++strip) {
    int64_t image = strip / p.row_strips * p.strip_images, row = strip % p.row_strips * p.strip_rows;
    int64_t images = minimum(p.strip_images, p.draw.images - image), rows = minimum(p.strip_rows, p.draw.height - row);
    pack_operand<T>(p.operand, p.panel, image, images, row * p.row_advance,
                    (rows - 1) * p.row_advance + p.panel.row_span, operand);
    Panel packed = own_panel;
    packed.image_stride = rows * packed.row_stride;  // its pixels follow each other
    pack_operand<T>(own, packed, image, images, row, rows, draw);
    for (int64_t q = 0; q < images * rows; ++q) {
      lines[q] = q / rows * p.panel.image_stride + q % rows * p.row_advance * p.panel.row_stride;
    }
    t.groups = images * rows;
    t.depth = p.draw.width;
    if (lines[t.groups - 1] == (t.groups - 1) * t.depth * t.step) {  // the rows follow each other in both panels
      while (t.depth < kLongDepth && t.groups % 2 == 0) {
        t.depth *= 2;
        t.groups /= 2;
        for (int64_t q = 0; q < t.groups; ++q) {
          lines[q] = q * t.depth * t.step;
        }
      }
    }
    Ahead ahead;
    if (strip + 1 < end) {
      int64_t next_image = (strip + 1) / p.row_strips * p.strip_images, next_row = (strip + 1) % p.row_strips * p.strip_rows;
      ahead.add(p.draw, sizeof(T), next_image, p.strip_images, next_row, p.strip_rows);
      int64_t advance = p.row_advance * p.panel.row_step;
      ahead.add(p.operand, sizeof(T), next_image, p.strip_images, next_row * advance, p.strip_rows * advance);
      ahead.spread((last - first) * p.groups * cuts.count * t.groups);
    }
    for (int64_t j = first; j < last; ++j) {
      int64_t channel = (j - first) * kColumns;
      t.b = draw + channel / kBlock * p.draw_panel.block_stride + channel % kBlock;
      for (int64_t g = 0; g < p.groups; ++g) {
        A* target = sums + (j * p.groups + g) * row_count * kColumns;
        for (int64_t i = 0; i < cuts.count; ++i) {
          t.c = target + cuts.begin(i) * kColumns;
          ahead.next(t);
          run_rows<A>(cuts.rows(i), t, operand + p.offsets[g] + cuts.begin(i));
        }
      }
    }
    t.accumulate = true;
  }
}

// Adds the workers' sums of one column tile and writes them to the weights' gradient.
template <typename T>
void unpack_weights(const UnpackWeightsParams& p, int64_t, int64_t tile) {
  using A = Acc<T>;
  constexpr int64_t kColumns = kMicroColumns<A>;
  int64_t columns = minimum(kColumns, p.layout.out_channels - tile * kColumns);
  int64_t depth = packed_depth<A>(p.layout), first = tile * depth * kColumns;
  T* weights = (T*)p.weights + tile * kColumns * p.layout.strides.out;
  each_group(p.layout, [&](int64_t offset, int64_t channels, int64_t row) __attribute__((always_inline)) {
    A total[kBlock * kColumns];
    const A* sums = (const A*)p.sums + first + row * kColumns;
    int64_t count = channels * kColumns;
    __builtin_memset(total, 0, count * sizeof(A));
    for (int64_t part = 0; part < p.parts; ++part, sums += p.sums_stride) {
      for (int64_t i = 0; i < count; ++i) {
        total[i] += sums[i];
      }
    }
    unpack_group(p.layout, total, channels, columns, weights + offset);
  });
}
