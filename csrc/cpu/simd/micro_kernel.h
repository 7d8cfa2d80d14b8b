// The one loop in which all multiply-accumulates of convolutions happen, but the depthwise: a tile of C in registers,
//     C[i][j] (+)= sum over groups q and k < depth of a(i, q, k) * b(q * depth + k, j)
// with a broadcast and b in vectors. Its rows lie in two runs of equal spacing (one more in the first if their number is
// odd), so that a tile can span two rows of an image; spacing and steps are free, so that one kernel serves convolutions
// of any stride, dilation and filter, Winograd's products, and gradients of weights, where k runs over pixels.

constexpr int kVectors = 2;  // of a tile's row
template <typename A>
constexpr int kMicroColumns = kVectors * kLanes<A>;
// 14 x 2 accumulators of 32 vector registers, or 6 x 2 of 16; the rest hold b and the broadcast a.
constexpr int kMicroRows = RESNET_FUSED_VECTOR_BYTES == 64 ? 14 : 6;

constexpr int64_t kLineBytes = 64;

template <typename A>
struct MicroTile {
  const A* a[2];           // first element of each run of rows
  int64_t row, step;       // from row to row, and from k to k + 1
  const int64_t* offsets;  // of a for each group
  int64_t groups, depth;
  const A* b;
  int64_t b_step, b_second;  // from k to k + 1, and from the first vector to the second
  A* c;
  int64_t c_row;
  bool accumulate;
  const char* ahead;       // memory needed soon: `ahead_lines` cache lines of it for each group, the next group's
  int64_t ahead_lines, ahead_step;  // `ahead_step` bytes further
};

// Each of a tile's sums waits for the multiply-add before it. Few of them take turns with as many more, which sum every
// other k, for the multipliers to have work meanwhile: 4 cycles of latency by 2 multipliers.
template <int M>
constexpr int kTurns = M * kVectors < 8 ? 2 : 1;

template <typename A, int M>
__attribute__((noinline)) void micro_kernel(const MicroTile<A>& t) {
  constexpr int L = kLanes<A>;
  constexpr int kFirst = (M + 1) / 2;
  using V = Vec<A, L>;
  V c[kTurns<M>][M][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int turn = 0; turn < kTurns<M>; ++turn) {
      c[turn][i][0] = c[turn][i][1] = V{};
    }
    if (t.accumulate) {
      __builtin_prefetch(t.c + i * t.c_row, 1, 3);
      __builtin_prefetch(t.c + i * t.c_row + L, 1, 3);
    }
  }
  const A* b = t.b;
  const char* ahead = t.ahead;
  const int64_t row = t.row, step = t.step, b_step = t.b_step, b_second = t.b_second, depth = t.depth;
  for (int64_t q = 0; q < t.groups; ++q) {
    const A* a0 = t.a[0] + t.offsets[q];
    const A* a1 = t.a[1] + t.offsets[q];
    for (int64_t i = 0; i < t.ahead_lines; ++i) {
      __builtin_prefetch(ahead + i * kLineBytes, 0, 2);
    }
    ahead += t.ahead_step;
    auto multiply = [&](V (&sums)[M][kVectors]) __attribute__((always_inline)) {
      V b0 = load<L>(b), b1 = load<L>(b + b_second);
      b += b_step;
#pragma GCC unroll 16
      for (int i = 0; i < M; ++i) {
        V v = splat<L>(i < kFirst ? a0[i * row] : a1[(i - kFirst) * row]);
        sums[i][0] = fma(v, b0, sums[i][0]);
        sums[i][1] = fma(v, b1, sums[i][1]);
      }
      a0 += step;
      a1 += step;
    };
    int64_t k = depth;
    if constexpr (M <= 4) {  // unrolled: so few multiply-adds do not hide what else there is to do for a k
      for (; k > 1; k -= 2) {
        multiply(c[0]);
        multiply(c[kTurns<M> - 1]);
      }
    }
    for (; k > 0; --k) {
      multiply(c[0]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      V sum = kTurns<M> == 2 ? c[0][i][j] + c[kTurns<M> - 1][i][j] : c[0][i][j];
      A* target = t.c + i * t.c_row + j * L;
      // After the sum, not before: two short sums lose fewer digits than a long one.
      store<L>(target, t.accumulate ? sum + load<L>(target) : sum);
    }
  }
}

template <typename A, int M>
RF_INLINE void run_micro_kernel(int rows, const MicroTile<A>& t) {
  if constexpr (M > 0) {
    if (rows == M) {
      micro_kernel<A, M>(t);
    } else {
      run_micro_kernel<A, M - 1>(rows, t);
    }
  }
}

// Runs the tile's first `rows` rows, the second run beginning where the first ends.
template <typename A>
RF_INLINE void run_rows(int rows, MicroTile<A>& t, const A* a) {
  t.a[0] = a;
  t.a[1] = a + (rows + 1) / 2 * t.row;
  run_micro_kernel<A, kMicroRows>(rows, t);
}

// n in as few parts of `most` as possible, as equal as possible: part i of `cut_count` begins at cut_begin.
RF_INLINE int64_t cut_count(int64_t n, int64_t most) {
  return (n + most - 1) / most;
}
RF_INLINE int64_t cut_begin(int64_t n, int64_t count, int64_t i) {
  return i * (n / count) + minimum(i, n % count);
}

// The same for the rows of micro-kernels, which are over in less time than a few divisions.
struct Cuts {
  int64_t count, size, larger;  // tiles; rows of one, one more in the first `larger`
  RF_MEMBER Cuts(int64_t rows) : count(cut_count(rows, kMicroRows)), size(rows / count), larger(rows % count) {}
  RF_MEMBER int64_t begin(int64_t i) const {
    return i * size + minimum(i, larger);
  }
  RF_MEMBER int64_t rows(int64_t i) const {
    return size + (i < larger ? 1 : 0);
  }
};
