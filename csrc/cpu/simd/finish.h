// Epilogues: from a tile of results in the accumulation type to memory, with what else is to be done to them while they
// are at hand. Stores are ordinary ones: past the caches they were slower, for what follows reads them. A run is `rows`
// results c[row][column tile], of output pixels pixel, pixel + pixel_step, …

template <typename A>
struct FinishState {  // of one column tile within one part
  A pivot[kMicroColumns<A>];  // in the backward pass the sum of g * (raw2 - mean2)
  A sum[kMicroColumns<A>], square[kMicroColumns<A>];
  bool started;
};

struct Run {
  int64_t rows, pixel, pixel_step;
};

template <typename T>
using FinishFunction = void (*)(const Result& r, FinishState<Acc<T>>& state, const Acc<T>* c, int64_t c_row, Run run,
                                int64_t column);

// What is known of the vectors of a row: CHANNELS of them, N lanes each, from channel `first`.
template <int N, int COUNT, typename A>
RF_INLINE void load_all(Vec<A, N> (&v)[COUNT], const A* values, int64_t first) {
#pragma GCC unroll 2
  for (int j = 0; j < COUNT; ++j) {
    v[j] = load<N>(values + first + j * N);
  }
}

// Adds a run's sums to those of the part before it: sums of sums lose fewer digits than one long sum.
template <int N, int COUNT, typename A>
RF_INLINE void add_all(A* sums, int64_t first, const Vec<A, N> (&v)[COUNT]) {
#pragma GCC unroll 2
  for (int j = 0; j < COUNT; ++j) {
    store<N>(sums + first + j * N, load<N>(sums + first + j * N) + v[j]);
  }
}

// Sums of y - pivot and its square, of y as stored. The pivot is the mean of the part's first run.
template <typename T>
struct StatisticsFinish {
  using A = Acc<T>;
  template <int N, int COUNT>
  RF_MEMBER void run(const Result& r, FinishState<A>& s, const A* c, int64_t c_row, Run run, int64_t slot,
                     int64_t lane) const {
    using V = Vec<A, N>;
    V pivot[COUNT], sum[COUNT] = {}, square[COUNT] = {};
    if (!s.started) {
#pragma GCC unroll 2
      for (int j = 0; j < COUNT; ++j) {
        V total{};
        for (int64_t i = 0; i < run.rows; ++i) {
          total += load<N>(c + i * c_row + j * N);
        }
        V mean = total / (A)run.rows;
        store<N>(s.pivot + lane + j * N, mean - mean == 0 ? mean : V{});
        store<N>(s.sum + lane + j * N, V{});
        store<N>(s.square + lane + j * N, V{});
      }
    }
    load_all<N, COUNT>(pivot, s.pivot, lane);
    T* y = (T*)r.y + run.pixel * r.pitch + r.first + slot;
    for (int64_t i = 0; i < run.rows; ++i, c += c_row, y += run.pixel_step * r.pitch) {
#pragma GCC unroll 2
      for (int j = 0; j < COUNT; ++j) {
        V v = rounded<T, N>(load<N>(c + j * N));
        store<N>(y + j * N, v);
        V d = v - pivot[j];
        sum[j] += d;
        square[j] = fma(d, d, square[j]);
      }
    }
    add_all<N, COUNT>(s.sum, lane, sum);
    add_all<N, COUNT>(s.square, lane, square);
  }
};

template <typename T, Residual RESIDUAL>
struct ApplyFinish {
  using A = Acc<T>;
  template <int N, int COUNT>
  RF_MEMBER void run(const Result& r, FinishState<A>&, const A* c, int64_t c_row, Run run, int64_t slot, int64_t) const {
    using V = Vec<A, N>;
    AffineRows<A> a = affine_rows<A>(r.affine, r.pitch), b = affine_rows<A>(r.residual_affine, r.pitch);
    int64_t k = r.first + slot;
    V mean[COUNT], scale[COUNT], shift[COUNT], floor = splat<N>(relu_floor<A>(r.relu));
    load_all<N, COUNT>(mean, a.mean, k);
    load_all<N, COUNT>(scale, a.scale, k);
    load_all<N, COUNT>(shift, a.shift, k);
    int64_t offset = run.pixel * r.pitch + k;
    for (int64_t i = 0; i < run.rows; ++i, c += c_row, offset += run.pixel_step * r.pitch) {
#pragma GCC unroll 2
      for (int j = 0; j < COUNT; ++j) {
        V v = affine(rounded<T, N>(load<N>(c + j * N)), mean[j], scale[j], shift[j]);
        if constexpr (RESIDUAL != Residual::kNone) {
          V s = load<N>((const T*)r.residual + offset + j * N);
          if constexpr (RESIDUAL == Residual::kAffine) {
            s = affine(s, load<N>(b.mean + k + j * N), load<N>(b.scale + k + j * N), load<N>(b.shift + k + j * N));
          }
          v += s;
        }
        store<N>((T*)r.y + offset + j * N, zero_up_to(floor, v, v));
      }
    }
  }
};

// Which batch norms the sums of a gradient are for: none; x's own; those whose sum's ReLU is x, one or two.
enum class Sums : int { kNone, kOfX, kOfRaw, kOfRaws };

template <typename T, bool ADD, bool MASK, Sums SUMS>
struct BackwardFinish {
  using A = Acc<T>;
  template <int N, int COUNT>
  RF_MEMBER void run(const Result& r, FinishState<A>& s, const A* c, int64_t c_row, Run run, int64_t slot,
                     int64_t lane) const {
    using V = Vec<A, N>;
    constexpr bool kRaw = SUMS == Sums::kOfRaw || SUMS == Sums::kOfRaws, kSecond = SUMS == Sums::kOfRaws;
    int64_t k = r.first + slot;
    AffineRows<A> a = affine_rows<A>(r.affine, r.pitch), a2 = affine_rows<A>(r.affine2, r.pitch);
    V mean[COUNT], mean2[COUNT], scale[COUNT], shift[COUNT], floor = splat<N>(relu_floor<A>(r.relu));
    V sum[COUNT] = {}, square[COUNT] = {}, square2[COUNT] = {};
    if constexpr (SUMS != Sums::kNone) {
      load_all<N, COUNT>(mean, a.mean, k);
      if constexpr (SUMS == Sums::kOfX) {
        load_all<N, COUNT>(scale, a.scale, k);
        load_all<N, COUNT>(shift, a.shift, k);
      }
      if constexpr (kSecond) {
        load_all<N, COUNT>(mean2, a2.mean, k);
      }
      if (!s.started) {
#pragma GCC unroll 2
        for (int j = 0; j < COUNT; ++j) {
          store<N>(s.sum + lane + j * N, V{});
          store<N>(s.square + lane + j * N, V{});
          store<N>(s.pivot + lane + j * N, V{});
        }
      }
    }
    int64_t offset = run.pixel * r.pitch + k;
    for (int64_t i = 0; i < run.rows; ++i, c += c_row, offset += run.pixel_step * r.pitch) {
#pragma GCC unroll 2
      for (int j = 0; j < COUNT; ++j) {
        V v = load<N>(c + j * N);
        if constexpr (ADD) {
          v = rounded<T, N>(v);
          V t = load<N>((const T*)r.add + offset + j * N);
          if constexpr (MASK) {
            t = zero_up_to(V{}, load<N>((const T*)r.add_out + offset + j * N), t);
          }
          v += t;
        }
        v = rounded<T, N>(v);
        if constexpr (kRaw) {
          v = zero_up_to(V{}, load<N>((const T*)r.x + offset + j * N), v);
        }
        store<N>((T*)r.y + offset + j * N, v);
        if constexpr (SUMS == Sums::kOfX) {
          V d = load<N>((const T*)r.x + offset + j * N) - mean[j];
          V g = zero_up_to(floor, fma(d, scale[j], shift[j]), v);
          sum[j] += g;
          square[j] = fma(g, d, square[j]);
        }
        if constexpr (kRaw) {
          sum[j] += v;
          square[j] = fma(v, load<N>((const T*)r.raw + offset + j * N) - mean[j], square[j]);
        }
        if constexpr (kSecond) {
          square2[j] = fma(v, load<N>((const T*)r.raw2 + offset + j * N) - mean2[j], square2[j]);
        }
      }
    }
    if constexpr (SUMS != Sums::kNone) {
      add_all<N, COUNT>(s.sum, lane, sum);
      add_all<N, COUNT>(s.square, lane, square);
      if constexpr (kSecond) {
        add_all<N, COUNT>(s.pivot, lane, square2);
      }
    }
  }
};

// The lines that a run will read and write, on their way while something is computed. They may lie past the end.
template <typename T>
RF_INLINE void prefetch_run(const Result& r, Run run, int64_t column) {
  int64_t first = (run.pixel * r.pitch + r.first + column) * sizeof(T), step = run.pixel_step * r.pitch * sizeof(T);
  const void* tensors[] = {r.y, r.x, r.residual, r.add, r.add_out, r.raw, r.raw2};
  for (const void* tensor : tensors) {
    const char* p = (const char*)tensor + first;
    for (int64_t i = 0; tensor && i < run.rows; ++i, p += step) {
      for (int64_t byte = 0; byte < kMicroColumns<Acc<T>> * (int64_t)sizeof(T); byte += kLineBytes) {
        __builtin_prefetch(p + byte, 1, 3);
      }
    }
  }
}

template <typename T, typename Body>
__attribute__((noinline)) void finish_run(const Result& r, FinishState<Acc<T>>& state, const Acc<T>* c, int64_t c_row,
                                          Run run, int64_t column) {
  using A = Acc<T>;
  constexpr int L = kLanes<A>;
  Body body;
  int64_t there = minimum(kMicroColumns<A>, r.channels - column), lane = 0;
  if (there == kMicroColumns<A>) {
    body.template run<L, kVectors>(r, state, c, c_row, run, column, 0);
  } else {
    for (; lane + L <= there; lane += L) {
      body.template run<L, 1>(r, state, c + lane, c_row, run, column + lane, lane);
    }
    for (; lane < there; ++lane) {
      body.template run<1, 1>(r, state, c + lane, c_row, run, column + lane, lane);
    }
  }
  state.started = true;
}

template <typename T, Sums SUMS>
FinishFunction<T> backward_finish(const Result& r) {
  return !r.add       ? finish_run<T, BackwardFinish<T, false, false, SUMS>>
         : !r.add_out ? finish_run<T, BackwardFinish<T, true, false, SUMS>>
                      : finish_run<T, BackwardFinish<T, true, true, SUMS>>;
}

template <typename T>
FinishFunction<T> finish_function(const Result& r) {
  switch (r.finish) {
    case Finish::kStore:
      return backward_finish<T, Sums::kNone>({});
    case Finish::kStatistics:
      return finish_run<T, StatisticsFinish<T>>;
    case Finish::kApply:
      return !r.residual          ? finish_run<T, ApplyFinish<T, Residual::kNone>>
             : !r.residual_affine ? finish_run<T, ApplyFinish<T, Residual::kPlain>>
                                  : finish_run<T, ApplyFinish<T, Residual::kAffine>>;
    case Finish::kBackward:
      return r.raw2  ? backward_finish<T, Sums::kOfRaws>(r)
             : r.raw ? backward_finish<T, Sums::kOfRaw>(r)
             : r.x   ? backward_finish<T, Sums::kOfX>(r)
                     : backward_finish<T, Sums::kNone>(r);
  }
  return nullptr;
}

// Writes what a part's column tile has summed: mean and M2 of `count` values, or the sums.
template <typename A>
void flush(const Result& r, const FinishState<A>& s, int64_t part, int64_t count, int64_t column) {
  if (!r.partial || !s.started) {
    return;
  }
  double* first = r.partial + r.rows() * part * r.partial_stride + r.first + column;
  double *second = first + r.partial_stride, *third = r.raw2 ? second + r.partial_stride : nullptr;
  int64_t there = minimum(kMicroColumns<A>, r.channels - column);
  for (int64_t i = 0; i < there; ++i) {
    double sum = s.sum[i], square = s.square[i];
    if (r.finish == Finish::kStatistics) {
      double m2 = square - sum * sum / count;
      first[i] = s.pivot[i] + sum / count;
      second[i] = m2 <= 0 ? 0 : m2;
    } else {
      first[i] = sum;
      second[i] = square;
      if (third) {
        third[i] = s.pivot[i];
      }
    }
  }
}
