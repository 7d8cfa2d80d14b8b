// Packs a strip of a convolution's input into a panel, in the accumulation type: the prologue is applied here, once, to
// the pixels there are; padding is zero after it.

constexpr int64_t kPrefetchBytes = 4096;

template <typename T, Form FORM>
struct FormBody {
  using A = Acc<T>;
  static constexpr bool kIsPlain = FORM == Form::kPlain;
  const T *x, *raw, *out;
  AffineRows<A> a;
  const A *mean_g, *slope;
  A floor;

  // What the loop will come to: the hardware does not see that it runs through memory in one direction.
  RF_MEMBER void prefetch(int64_t offset) const {
    __builtin_prefetch((const char*)(x + offset) + kPrefetchBytes, 0, 3);
    if constexpr (FORM == Form::kDraw || FORM == Form::kDrawOutput || FORM == Form::kDrawAffine) {
      __builtin_prefetch((const char*)(raw + offset) + kPrefetchBytes, 0, 3);
    }
    if constexpr (FORM == Form::kMasked || FORM == Form::kDrawOutput) {
      __builtin_prefetch((const char*)(out + offset) + kPrefetchBytes, 0, 3);
    }
  }

  template <int N>
  RF_MEMBER Vec<A, N> value(int64_t offset, int64_t c) const {
    using V = Vec<A, N>;
    V v = load<N>(x + offset);
    if constexpr (FORM == Form::kAffine) {
      v = affine(v, load<N>(a.mean + c), load<N>(a.scale + c), load<N>(a.shift + c));
      return zero_up_to(splat<N>(floor), v, v);
    } else if constexpr (FORM == Form::kMasked) {
      return zero_up_to(V{}, load<N>(out + offset), v);
    } else if constexpr (FORM != Form::kPlain) {
      V d = load<N>(raw + offset) - load<N>(a.mean + c), scale = load<N>(a.scale + c);
      if constexpr (FORM == Form::kDrawOutput) {
        v = zero_up_to(V{}, load<N>(out + offset), v);
      } else if constexpr (FORM == Form::kDrawAffine) {
        v = zero_up_to(V{}, fma(d, scale, load<N>(a.shift + c)), v);
      }
      return bn_draw(v, d, load<N>(mean_g + c), load<N>(slope + c), scale);
    }
    return v;
  }
};

constexpr int kPackPixels = 4;  // share the loads of their channels' constants

template <int R, typename A, typename Body>
RF_INLINE void pack_blocks(const Body& body, const Operand& o, const Panel& p, int64_t source, int64_t step, A* target) {
  constexpr int L = kLanes<A> < kBlock ? kLanes<A> : kBlock;
  int64_t c = 0;
  for (int64_t block = 0; block < p.blocks; ++block, target += p.block_stride) {
    for (int64_t lane = 0; lane < kBlock; lane += L, c += L) {
      if (c + L <= o.channels) {
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          body.prefetch(source + r * step + c);
          store<L>(target + r * kBlock + lane, body.template value<L>(source + r * step + c, o.first + c));
        }
        continue;
      }
      for (int r = 0; r < R; ++r) {
        for (int64_t i = 0; i < L; ++i) {
          A* element = target + r * kBlock + lane + i;
          *element = A(0);
          if (c + i < o.channels) {
            *element = body.template value<1>(source + r * step + c + i, o.first + c + i)[0];
          }
        }
      }
    }
  }
}

template <typename A, typename Body>
RF_INLINE void pack_folded(const Body& body, const Operand& o, int64_t source, int64_t step, int64_t count, A* target) {
  if (Body::kIsPlain && step == o.channels) {  // pixels follow each other in memory too
    constexpr int L = kLanes<A>;
    int64_t i = 0, elements = count * o.channels;
    for (; i + L <= elements; i += L) {
      store<L>(target + i, body.template value<L>(source + i, 0));
    }
    for (; i < elements; ++i) {
      store<1>(target + i, body.template value<1>(source + i, 0));
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < o.channels; ++c) {
      *target++ = body.template value<1>(source + i * step + c, o.first + c)[0];
    }
  }
}

template <typename A>
RF_INLINE void zero_columns(const Operand& o, const Panel& p, int64_t count, A* target) {
  int64_t elements = count * (p.folded ? o.channels : kBlock);
  for (int64_t block = 0; block < p.blocks; ++block, target += p.block_stride) {
    __builtin_memset(target, 0, elements * sizeof(A));
  }
}

// One row of the panel from input row y of an image; `target` is its first column.
template <typename A, typename Body>
RF_INLINE void pack_row(const Body& body, const Operand& o, const Panel& p, int64_t image, int64_t y, A* target) {
  if (y < 0 || y >= o.height) {
    return zero_columns(o, p, p.columns, target);
  }
  // Columns [begin, end) are inside of the image.
  int64_t begin = p.first_column < 0 ? (-p.first_column + p.column_step - 1) / p.column_step : 0;
  int64_t end = (o.width - p.first_column + p.column_step - 1) / p.column_step;
  end = minimum(end < 0 ? 0 : end, p.columns);
  begin = minimum(begin, end);
  zero_columns(o, p, begin, target);
  zero_columns(o, p, p.columns - end, target + end * p.column_stride);
  int64_t source = ((image * o.height + y) * o.width + p.first_column + begin * p.column_step) * o.pitch + o.first;
  int64_t step = p.column_step * o.pitch;
  target += begin * p.column_stride;
  if (p.folded) {
    return pack_folded(body, o, source, step, end - begin, target);
  }
  int64_t i = begin;
  for (; i + kPackPixels <= end; i += kPackPixels) {
    pack_blocks<kPackPixels>(body, o, p, source, step, target);
    source += kPackPixels * step;
    target += kPackPixels * kBlock;
  }
  for (; i < end; ++i, source += step, target += kBlock) {
    pack_blocks<1>(body, o, p, source, step, target);
  }
}

template <typename T, Form FORM>
__attribute__((noinline)) void pack_form(const Operand& o, const Panel& p, int64_t image, int64_t images, int64_t row,
                                         int64_t rows, Acc<T>* target) {
  using A = Acc<T>;
  FormBody<T, FORM> body{(const T*)o.x, (const T*)o.raw, (const T*)o.out, affine_rows<A>(o.affine, o.pitch),
                         (const A*)o.mean_g, (const A*)o.slope, relu_floor<A>(o.relu)};
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t r = 0; r < rows; ++r) {
      int64_t y = p.first_row + (row + r) * p.row_step;
      pack_row(body, o, p, image + n, y, target + n * p.image_stride + r * p.row_stride);
    }
  }
}

// Panel rows [row, row + rows) of the images [image, image + images).
template <typename T>
void pack_operand(const Operand& o, const Panel& p, int64_t image, int64_t images, int64_t row, int64_t rows,
                  Acc<T>* target) {
  switch (o.form) {
    case Form::kPlain:
      return pack_form<T, Form::kPlain>(o, p, image, images, row, rows, target);
    case Form::kAffine:
      return pack_form<T, Form::kAffine>(o, p, image, images, row, rows, target);
    case Form::kMasked:
      return pack_form<T, Form::kMasked>(o, p, image, images, row, rows, target);
    case Form::kDraw:
      return pack_form<T, Form::kDraw>(o, p, image, images, row, rows, target);
    case Form::kDrawOutput:
      return pack_form<T, Form::kDrawOutput>(o, p, image, images, row, rows, target);
    case Form::kDrawAffine:
      return pack_form<T, Form::kDrawAffine>(o, p, image, images, row, rows, target);
  }
}
