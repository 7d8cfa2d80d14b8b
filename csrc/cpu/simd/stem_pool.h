// MaxPool 3x3, stride 2, padding 1, of relu(z(x)), with the winner's position in its window.

// Starting at 0 with index 255 is ReLU and "no gradient" in one: only z > 0 or a NaN wins. The first of
// equal maxima wins, and the last NaN, as in PyTorch.
template <typename A, int N>
struct Winner {
  Vec<A, N> value{};
  Vec<Int<A>, N> index = Vec<Int<A>, N>{} + 255;

  RF_MEMBER void offer(Vec<A, N> z, int position) {
    auto wins = (z > value) | (z != z);
    value = wins ? z : value;
    index = wins ? Vec<Int<A>, N>{} + position : index;
  }
};

// Even and odd lanes of the 2 * N elements a, b; and back.
template <typename A, int N>
struct Lanes {
  using V = Vec<A, N>;
  using I = Vec<Int<A>, N>;
  RF_INLINE I iota() {
    I i{};
#pragma GCC unroll 16
    for (int k = 0; k < N; ++k) {
      i[k] = k;
    }
    return i;
  }
  RF_INLINE V even(V a, V b) {
    return __builtin_shuffle(a, b, iota() * 2);
  }
  RF_INLINE V odd(V a, V b) {
    return __builtin_shuffle(a, b, iota() * 2 + 1);
  }
  RF_INLINE V low(V even, V odd) {
    return __builtin_shuffle(even, odd, iota() / 2 + (iota() & 1) * N);
  }
  RF_INLINE V high(V even, V odd) {
    return __builtin_shuffle(even, odd, iota() / 2 + N / 2 + (iota() & 1) * N);
  }
};

template <typename T>
struct StemPool {
  using A = Acc<T>;
  StemShape s;
  const T* x;
  AffineRows<A> a;
  T* y;
  uint8_t* index;

  template <int N>
  RF_MEMBER void put(int64_t at, const Winner<A, N>& best) {
    store<N>(y + at, best.value);
    store_index<N, A>(index + at, best.index);
  }

  // One pixel (p, q) of y, channels c to c + N, channels last.
  template <int N>
  RF_MEMBER void pixel(int64_t image, int64_t p, int64_t q, int64_t c) {
    auto mean = load<N>(a.mean + c), scale = load<N>(a.scale + c), shift = load<N>(a.shift + c);
    Winner<A, N> best;
#pragma GCC unroll 3
    for (int r = 0; r < 3; ++r) {
      int64_t h = 2 * p - 1 + r;
      if (h < 0 || h >= s.height) {
        continue;
      }
      const T* row = x + (image * s.height + h) * s.width * s.channels + c;
#pragma GCC unroll 3
      for (int t = 0; t < 3; ++t) {
        int64_t w = 2 * q - 1 + t;
        if (w >= 0 && w < s.width) {
          best.offer(affine(load<N>(row + w * s.channels), mean, scale, shift), 3 * r + t);
        }
      }
    }
    put<N>(((image * s.out_height + p) * s.out_width + q) * s.channels + c, best);
  }

  RF_MEMBER void rows(int64_t begin, int64_t end) {
    constexpr int L = kLanes<A>;
    for (int64_t row = begin; row < end; ++row) {
      int64_t image = row / s.out_height, p = row % s.out_height;
      for (int64_t q = 0; q < s.out_width; ++q) {
        int64_t c = 0;
        for (; c + L <= s.channels; c += L) {
          pixel<L>(image, p, q, c);
        }
        for (; c < s.channels; ++c) {
          pixel<1>(image, p, q, c);
        }
      }
    }
  }

  // Row p of one plane of y, columns q to q + N, all windows inside in width if N > 1.
  template <int N>
  RF_MEMBER void columns(int64_t plane, int64_t p, int64_t q) {
    using V = Vec<A, N>;
    int64_t c = plane % s.channels;
    V mean = splat<N>(a.mean[c]), scale = splat<N>(a.scale[c]), shift = splat<N>(a.shift[c]);
    Winner<A, N> best;
#pragma GCC unroll 3
    for (int r = 0; r < 3; ++r) {
      int64_t h = 2 * p - 1 + r;
      if (h < 0 || h >= s.height) {
        continue;
      }
      const T* row = x + (plane * s.height + h) * s.width;
      if constexpr (N > 1) {
        const T* left = row + 2 * q - 1;
        V l0 = load<N>(left), l1 = load<N>(left + N), m0 = load<N>(left + 1), m1 = load<N>(left + 1 + N);
        best.offer(affine(Lanes<A, N>::even(l0, l1), mean, scale, shift), 3 * r);
        best.offer(affine(Lanes<A, N>::even(m0, m1), mean, scale, shift), 3 * r + 1);
        best.offer(affine(Lanes<A, N>::odd(m0, m1), mean, scale, shift), 3 * r + 2);
      } else {
        for (int t = 0; t < 3; ++t) {
          int64_t w = 2 * q - 1 + t;
          if (w >= 0 && w < s.width) {
            best.offer(affine(load<N>(row + w), mean, scale, shift), 3 * r + t);
          }
        }
      }
    }
    put<N>((plane * s.out_height + p) * s.out_width + q, best);
  }

  RF_MEMBER void planes(int64_t begin, int64_t end) {
    constexpr int L = kLanes<A>;
    for (int64_t plane = begin; plane < end; ++plane) {
      for (int64_t p = 0; p < s.out_height; ++p) {
        // Column 0 has no left neighbour. The last vector may overlap the one before: it writes the same.
        int64_t q = 0, inside = minimum(s.out_width, s.width / 2);
        if (s.out_width > 0) {
          columns<1>(plane, p, q++);
        }
        while (q < inside && inside > L) {
          q = minimum(q, inside - L);
          columns<L>(plane, p, q);
          q += L;
        }
        for (; q < s.out_width; ++q) {
          columns<1>(plane, p, q);
        }
      }
    }
  }
};

template <typename T>
void stem_pool(const StemPoolParams& p, int64_t, int64_t begin, int64_t end) {
  StemPool<T> body{p.shape, (const T*)p.x, affine_rows<Acc<T>>(p.affine, p.shape.channels), (T*)p.y, p.index};
  if (p.shape.channels_last) {
    body.rows(begin, end);
  } else {
    body.planes(begin, end);
  }
}
