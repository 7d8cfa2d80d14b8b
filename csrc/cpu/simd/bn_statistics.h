// Mean and M2 per channel in one pass. The sums of a tile are of x - pivot and its square, with the
// running mean as pivot; tiles are merged by Chan's formula in double. The squared distance of mean and pivot enters M2
// too where they differ much (the data drift, or an outlier is in the first pivot), so its rounding does not matter.

constexpr int64_t kPivotRows = 8;
constexpr int64_t kPivotElements = 64;

template <typename Layout, typename T>
struct StatisticsBody {
  using A = Acc<T>;
  const T* x;
  double *count, *mean, *m2;  // [C]
  A *pivot, *sum, *square;    // [C]; sum and square by slot
  int64_t channels;

  template <int N, int R>
  RF_MEMBER void step(int64_t offset, int64_t stride, int64_t c) {
    using V = Vec<A, N>;
    V k = Layout::template channel<N>(pivot, c);
    A* s = sum + Layout::slot(c);
    A* q = square + Layout::slot(c);
    // Two short chains: the slots of a plane are one address, whose latency would add up.
    V s0 = load<N>(x + offset) - k, q0 = s0 * s0;
    if constexpr (R == kUnroll) {
      V d1 = load<N>(x + offset + stride) - k;
      V s2 = load<N>(x + offset + 2 * stride) - k, q2 = s2 * s2;
      V d3 = load<N>(x + offset + 3 * stride) - k;
      q0 = fma(d1, d1, q0) + fma(d3, d3, q2);
      s0 = (s0 + d1) + (s2 + d3);
    }
    store<N>(s, load<N>(s) + s0);
    store<N>(q, load<N>(q) + q0);
  }

  // Of a tile of n values joining `known` earlier ones.
  struct Weights {
    double n, inverse, keep, add, cross;
    RF_MEMBER Weights(double known, double n)
        : n(n), inverse(1 / n), keep(known / (known + n)), add(n / (known + n)), cross(known * add) {}
  };

  // The tile's sum s and square q of the channels c to c + N, whose pivots they are taken from.
  template <int N>
  RF_MEMBER void merge(int64_t c, const Weights& w, Vec<double, N> s, Vec<double, N> q) {
    using V = Vec<double, N>;
    V known_mean = load<N>(mean + c);
    V tile_mean = __builtin_convertvector(load<N>(pivot + c), V) + s * w.inverse;
    V tile_m2 = q - s * s * w.inverse;
    V delta = tile_mean - known_mean;
    store<N>(m2 + c, load<N>(m2 + c) + zero_up_to(V{}, tile_m2, tile_m2) + delta * delta * w.cross);
    // The weighted form, not mean + delta * add: an infinite mean stays infinite.
    V merged = w.keep * known_mean + w.add * tile_mean;
    store<N>(mean + c, merged);
    store<N>(count + c, load<N>(count + c) + w.n);
    Vec<A, N> rounded = __builtin_convertvector(merged, Vec<A, N>);
    store<N>(pivot + c, rounded - rounded == 0 ? rounded : Vec<A, N>{});
  }

  template <int N>
  RF_MEMBER void drain_rows(int64_t c, const Weights& w) {
    using V = Vec<double, N>;
    merge<N>(c, w, __builtin_convertvector(load<N>(sum + c), V), __builtin_convertvector(load<N>(square + c), V));
    store<N>(sum + c, Vec<A, N>{});
    store<N>(square + c, Vec<A, N>{});
  }

  RF_MEMBER void drain(Rows, int64_t rows) {
    constexpr int L = kLanes<double>;
    Weights w(count[0], (double)rows);
    int64_t c = 0;
    for (; c + L <= channels; c += L) {
      drain_rows<L>(c, w);
    }
    for (; c < channels; ++c) {
      drain_rows<1>(c, w);
    }
  }
  RF_MEMBER void drain(Planes, int64_t c, int64_t elements) {
    Vec<double, 1> s{drain_lanes(sum)}, q{drain_lanes(square)};
    merge<1>(c, Weights(count[c], (double)elements), s, q);
  }
};

template <typename Layout, typename T>
void run_statistics(const StatisticsTask& p, int64_t chunk, int64_t begin, int64_t end) {
  using A = Acc<T>;
  int64_t channels = p.shape.channels, slots = p.scratch.slots;
  double* wide = (double*)(p.scratch.data + chunk * p.scratch.stride);
  A* tile = (A*)(wide + 3 * slots);
  StatisticsBody<Layout, T> body{(const T*)p.x, wide, wide + slots, wide + 2 * slots,
                                 tile, tile + slots, tile + 2 * slots, channels};
  // First pivots: the mean of the chunk's first values of each channel, enough of them that an outlier moves it
  // by little more than its share of a tile.
  bool rows = p.shape.channels_last;
  int64_t known = rows ? channels : minimum(channels, end - begin);
  int64_t values = rows ? minimum(kPivotRows, end - begin) : minimum(kPivotElements, p.shape.pixels);
  for (int64_t i = 0; begin < end && i < known; ++i) {
    const T* first = body.x + (rows ? begin * channels + i : (begin + i) * p.shape.pixels);
    A total = 0;
    for (int64_t k = 0; k < values; ++k) {
      total += load<1>(first + k * (rows ? channels : 1))[0];
    }
    A value = total / A(values);
    body.pivot[rows ? i : (begin + i) % channels] = value - value == 0 ? value : A(0);
  }
  sweep_tiles<A>(Layout{}, body, p.shape, begin, end);
}

template <typename T>
void statistics(const StatisticsTask& p, int64_t chunk, int64_t begin, int64_t end) {
  if (p.shape.channels_last) {
    run_statistics<Rows, T>(p, chunk, begin, end);
  } else {
    run_statistics<Planes, T>(p, chunk, begin, end);
  }
}
