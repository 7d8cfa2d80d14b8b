// The loops over memory. A body has
//     template <int N, int R> void step(int64_t offset, int64_t stride, int64_t channel)
// which works on R vectors of N lanes at offset, offset + stride, …; they share the same
// channels, so their per-channel constants are loaded once.

// Channels last: lanes are channels, the R vectors are consecutive pixels.
struct Rows {
  template <int N, typename A>
  RF_INLINE Vec<A, N> channel(const A* values, int64_t c) {
    return load<N>(values + c);
  }
  RF_INLINE int64_t slot(int64_t c) {
    return c;
  }
};

// Pixels last: all lanes are of one channel, and its partial sums are spread over the lanes.
struct Planes {
  template <int N, typename A>
  RF_INLINE Vec<A, N> channel(const A* values, int64_t c) {
    return splat<N>(values[c]);
  }
  RF_INLINE int64_t slot(int64_t) {
    return 0;
  }
};

constexpr int kUnroll = 4;
// So much is summed in the accumulation type before it is added to the double total.
constexpr int64_t kTileRows = 64;
constexpr int64_t kTileElements = 2048;  // of a plane

template <typename A, int R, typename Body>
RF_INLINE void sweep_row(Body& body, int64_t offset, int64_t channels) {
  constexpr int L = kLanes<A>;
  int64_t c = 0;
  for (; c + L <= channels; c += L) {
    body.template step<L, R>(offset + c, channels, c);
  }
  for (; c < channels; ++c) {
    body.template step<1, R>(offset + c, channels, c);
  }
}

// Row by row, in the order of memory: the hardware prefetcher follows one stream in a page. Only rows longer than
// that can be taken together, which they should: their constants and sums no longer fit the first-level cache.
constexpr int64_t kPage = 4096;

template <typename A, typename Body>
RF_INLINE void sweep_rows(Body& body, int64_t begin, int64_t end, int64_t channels) {
  int64_t row = begin;
  if (channels * (int64_t)sizeof(A) > kPage) {
    for (; row + kUnroll <= end; row += kUnroll) {
      sweep_row<A, kUnroll>(body, row * channels, channels);
    }
  }
  for (; row < end; ++row) {
    sweep_row<A, 1>(body, row * channels, channels);
  }
}

template <typename A, typename Body>
RF_INLINE void sweep_flat(Body& body, int64_t begin, int64_t end, int64_t c) {
  constexpr int L = kLanes<A>;
  int64_t i = begin;
  for (; i + kUnroll * L <= end; i += kUnroll * L) {
    body.template step<L, kUnroll>(i, L, c);
  }
  for (; i + L <= end; i += L) {
    body.template step<L, 1>(i, L, c);
  }
  for (; i < end; ++i) {
    body.template step<1, 1>(i, 1, c);
  }
}

template <typename A, typename Body>
RF_INLINE void sweep(Rows, Body& body, const Shape& shape, int64_t begin, int64_t end) {
  sweep_rows<A>(body, begin, end, shape.channels);
}

template <typename A, typename Body>
RF_INLINE void sweep(Planes, Body& body, const Shape& shape, int64_t begin, int64_t end) {
  for (int64_t plane = begin; plane < end; ++plane) {
    sweep_flat<A>(body, plane * shape.pixels, (plane + 1) * shape.pixels, plane % shape.channels);
  }
}

// The same with the body's tile sums drained regularly: drain(Rows, n) takes n rows of all
// channels, drain(Planes, c, n) takes n elements of channel c.
template <typename A, typename Body>
RF_INLINE void sweep_tiles(Rows, Body& body, const Shape& shape, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; row += kTileRows) {
    int64_t stop = minimum(row + kTileRows, end);
    sweep_rows<A>(body, row, stop, shape.channels);
    body.drain(Rows{}, stop - row);
  }
}

template <typename A, typename Body>
RF_INLINE void sweep_tiles(Planes, Body& body, const Shape& shape, int64_t begin, int64_t end) {
  for (int64_t plane = begin; plane < end; ++plane) {
    int64_t c = plane % shape.channels;
    int64_t last = (plane + 1) * shape.pixels;
    for (int64_t i = plane * shape.pixels; i < last; i += kTileElements) {
      int64_t stop = minimum(i + kTileElements, last);
      sweep_flat<A>(body, i, stop, c);
      body.drain(Planes{}, c, stop - i);
    }
  }
}

template <typename A>
struct AffineRows {
  const A *mean, *scale, *shift, *invstd;
};
template <typename A>
RF_INLINE AffineRows<A> affine_rows(const void* affine, int64_t channels) {
  const A* p = (const A*)affine;
  return {p, p + channels, p + 2 * channels, p + 3 * channels};
}

// The sum over the lanes of a slot vector, in double, by halves; resets the slots.
template <typename A>
RF_INLINE double drain_lanes(A* slots) {
  constexpr int L = kLanes<A>;
  double sums[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) {
    sums[i] = slots[i];
    slots[i] = 0;
  }
  for (int half = L / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      sums[i] += sums[i + half];
    }
  }
  return sums[0];
}
