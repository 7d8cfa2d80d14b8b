// Backward of stem_pool by gathering: a pixel of x adds the gradients of the windows (two at most in
// each direction) that it won. So each result is written once, in a fixed order.
//     reduce: sum g, sum g * (x - mean)       apply: draw = g, or with x the BN backward of g

enum class StemMode { kReduce, kApply };

template <typename T, StemMode MODE, bool INPUT>
struct StemPoolBackward {
  using A = Acc<T>;
  StemShape s;
  const T* grad;
  const uint8_t* index;
  const T* x;
  AffineRows<A> a;
  const A *mean_g, *slope;
  T* draw;
  double* total;  // [2][slots]
  A* tile;        // [2][slots]
  int64_t slots;

  // Rows (or columns) of y whose window holds row h of x, and h's place in it.
  struct Windows {
    int count;
    int64_t at[2];
    int place[2];
    RF_MEMBER Windows(int64_t h, int64_t outputs) : count(0) {
      for (int place_in_window = h % 2 ? 2 : 1; place_in_window >= 0; place_in_window -= 2) {
        int64_t output = (h + 1 - place_in_window) / 2;
        if (output < outputs) {
          at[count] = output;
          place[count++] = place_in_window;
        }
      }
    }
  };

  // The gradient at offset `at` of y, in the lanes whose winner is at `position`.
  template <int N>
  RF_MEMBER Vec<A, N> won(int64_t at, int position) {
    return load_index<N, A>(index + at) == position ? load<N>(grad + at) : Vec<A, N>{};
  }

  // What becomes of the gradient g at offset `at` of x; per-channel constants by Layout.
  template <typename Layout, int N>
  RF_MEMBER void consume(int64_t at, int64_t c, Vec<A, N> g) {
    using V = Vec<A, N>;
    V d{};
    if constexpr (INPUT) {
      d = load<N>(x + at) - Layout::template channel<N>(a.mean, c);
    }
    if constexpr (MODE == StemMode::kReduce) {
      A* slot = tile + Layout::slot(c);
      store<N>(slot, load<N>(slot) + g);
      if constexpr (INPUT) {
        store<N>(slot + slots, load<N>(slot + slots) + g * d);
      }
    } else if constexpr (INPUT) {
      V mg = Layout::template channel<N>(mean_g, c), k = Layout::template channel<N>(slope, c);
      store<N>(draw + at, bn_draw(g, d, mg, k, Layout::template channel<N>(a.scale, c)));
    } else {
      store<N>(draw + at, g);
    }
  }

  template <int N>
  RF_MEMBER void pixel(int64_t image, int64_t h, int64_t w, const Windows& rows, const Windows& columns, int64_t c) {
    Vec<A, N> g{};
    for (int i = 0; i < rows.count; ++i) {
      for (int j = 0; j < columns.count; ++j) {
        int64_t output = (image * s.out_height + rows.at[i]) * s.out_width + columns.at[j];
        g += won<N>(output * s.channels + c, 3 * rows.place[i] + columns.place[j]);
      }
    }
    consume<Rows, N>(((image * s.height + h) * s.width + w) * s.channels + c, c, g);
  }

  RF_MEMBER void rows(int64_t begin, int64_t end) {
    constexpr int L = kLanes<A>;
    for (int64_t row = begin; row < end; ++row) {
      int64_t image = row / s.height, h = row % s.height;
      Windows windows(h, s.out_height);
      for (int64_t w = 0; w < s.width; ++w) {
        Windows columns(w, s.out_width);
        int64_t c = 0;
        for (; c + L <= s.channels; c += L) {
          pixel<L>(image, h, w, windows, columns, c);
        }
        for (; c < s.channels; ++c) {
          pixel<1>(image, h, w, windows, columns, c);
        }
        if ((w + 1) % kTileRows == 0 || w + 1 == s.width) {
          drain(s.channels);
        }
      }
    }
  }

  // Columns 2q to 2q + 2N of x, for which columns q to q + N of y, and one more, matter.
  template <int N>
  RF_MEMBER void pairs(int64_t plane, int64_t h, const Windows& rows, int64_t q) {
    Vec<A, N> even{}, odd{};
    for (int i = 0; i < rows.count; ++i) {
      int64_t at = (plane * s.out_height + rows.at[i]) * s.out_width + q;
      even += won<N>(at, 3 * rows.place[i] + 1);
      odd += won<N>(at, 3 * rows.place[i] + 2) + won<N>(at + 1, 3 * rows.place[i]);
    }
    int64_t at = (plane * s.height + h) * s.width + 2 * q, c = plane % s.channels;
    consume<Planes, N>(at, c, Lanes<A, N>::low(even, odd));
    consume<Planes, N>(at + N, c, Lanes<A, N>::high(even, odd));
  }

  RF_MEMBER void single(int64_t plane, int64_t h, const Windows& rows, int64_t w) {
    Windows columns(w, s.out_width);
    Vec<A, 1> g{};
    for (int i = 0; i < rows.count; ++i) {
      for (int j = 0; j < columns.count; ++j) {
        g += won<1>((plane * s.out_height + rows.at[i]) * s.out_width + columns.at[j],
                    3 * rows.place[i] + columns.place[j]);
      }
    }
    consume<Planes, 1>((plane * s.height + h) * s.width + w, plane % s.channels, g);
  }

  RF_MEMBER void planes(int64_t begin, int64_t end) {
    constexpr int L = kLanes<A>;
    for (int64_t plane = begin; plane < end; ++plane) {
      for (int64_t h = 0; h < s.height; ++h) {
        Windows windows(h, s.out_height);
        int64_t q = 0, inside = s.out_width - 1;  // of which the next column exists too
        for (; q + L <= inside; q += L) {
          pairs<L>(plane, h, windows, q);
        }
        if (MODE == StemMode::kApply && q < inside && inside >= L) {  // overlaps the one before: it writes the same
          q = inside - L;
          pairs<L>(plane, h, windows, q);
          q = inside;
        }
        for (int64_t w = 2 * q; w < s.width; ++w) {
          single(plane, h, windows, w);
        }
        if constexpr (MODE == StemMode::kReduce) {
          int64_t c = plane % s.channels;
          for (int k = 0; k < (INPUT ? 2 : 1); ++k) {
            total[k * slots + c] += drain_lanes(tile + k * slots);
          }
        }
      }
    }
  }

  RF_MEMBER void drain(int64_t channels) {
    if constexpr (MODE == StemMode::kReduce) {
      for (int k = 0; k < (INPUT ? 2 : 1); ++k) {
        for (int64_t c = 0; c < channels; ++c) {
          total[k * slots + c] += tile[k * slots + c];
          tile[k * slots + c] = 0;
        }
      }
    }
  }
};

template <typename T, StemMode MODE, bool INPUT>
void run_stem_pool_backward(const StemPoolBackwardTask& p, int64_t chunk, int64_t begin, int64_t end) {
  using A = Acc<T>;
  int64_t slots = p.scratch.slots;
  double* total = nullptr;
  A* tile = nullptr;
  if constexpr (MODE == StemMode::kReduce) {
    total = (double*)(p.scratch.data + chunk * p.scratch.stride);
    tile = (A*)(total + 2 * slots);
  }
  StemPoolBackward<T, MODE, INPUT> body{
      p.shape, (const T*)p.grad, p.index, (const T*)p.x, affine_rows<A>(p.affine, p.shape.channels),
      (const A*)p.mean_g, (const A*)p.slope, (T*)p.draw, total, tile, slots};
  if (p.shape.channels_last) {
    body.rows(begin, end);
  } else {
    body.planes(begin, end);
  }
}

template <typename T>
void stem_pool_backward(const StemPoolBackwardTask& p, int64_t chunk, int64_t begin, int64_t end) {
  if (p.draw && p.x) {
    run_stem_pool_backward<T, StemMode::kApply, true>(p, chunk, begin, end);
  } else if (p.draw) {
    run_stem_pool_backward<T, StemMode::kApply, false>(p, chunk, begin, end);
  } else if (p.x) {
    run_stem_pool_backward<T, StemMode::kReduce, true>(p, chunk, begin, end);
  } else {
    run_stem_pool_backward<T, StemMode::kReduce, false>(p, chunk, begin, end);
  }
}
