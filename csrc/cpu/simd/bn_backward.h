// The two passes of BN backward. g is grad where the ReLU passes, that is where its output (or z,
// computed again) is not <= 0.
//     reduce: sum g, sum g * (x - mean), sum g * (x2 - mean2)     (the driver multiplies by invstd)
//     apply:  draw = scale * (g - mean_g - slope * (x - mean))

template <typename Layout, typename T, Mask MASK, int INPUTS, bool STORE>
struct BackwardReduceBody {
  using A = Acc<T>;
  static constexpr bool kAffine = MASK == Mask::kAffine || (STORE && MASK == Mask::kNone);  // z(x) is formed
  const T *grad, *out, *x, *x2;
  T* stored;      // g with the output's mask, else operand = [relu] z(x)
  AffineRows<A> a, a2;
  double* total;  // [1 + INPUTS][slots]
  A* tile;        // [1 + INPUTS][slots]
  int64_t channels, slots;
  A floor;        // of the stored operand

  template <int N>
  struct Sums {
    Vec<A, N> g, gd, gd2;
  };
  template <int N>
  struct Constants {
    Vec<A, N> mean, scale, shift, mean2;
  };

  template <int N>
  RF_MEMBER Sums<N> terms(const Constants<N>& k, int64_t offset) {
    using V = Vec<A, N>;
    Sums<N> r{load<N>(grad + offset), V{}, V{}};
    if constexpr (MASK == Mask::kOutput) {
      r.g = zero_up_to(V{}, load<N>(out + offset), r.g);
      if constexpr (STORE) {
        store<N>(stored + offset, r.g);
      }
    }
    if constexpr (INPUTS >= 1) {
      V d = load<N>(x + offset) - k.mean;
      if constexpr (kAffine) {
        V z = fma(d, k.scale, k.shift);  // affine(), whose difference is d
        if constexpr (MASK == Mask::kAffine) {
          r.g = zero_up_to(V{}, z, r.g);
        }
        if constexpr (STORE) {
          store<N>(stored + offset, zero_up_to(splat<N>(floor), z, z));
        }
      }
      r.gd = r.g * d;
    }
    if constexpr (INPUTS == 2) {
      r.gd2 = r.g * (load<N>(x2 + offset) - k.mean2);
    }
    return r;
  }

  template <int N>
  RF_MEMBER void accumulate(A* slot, Vec<A, N> value) {
    store<N>(slot, load<N>(slot) + value);
  }

  template <int N, int R>
  RF_MEMBER void step(int64_t offset, int64_t stride, int64_t c) {
    Constants<N> k{};
    if constexpr (INPUTS >= 1) {
      k.mean = Layout::template channel<N>(a.mean, c);
    }
    if constexpr (kAffine) {
      k.scale = Layout::template channel<N>(a.scale, c);
      k.shift = Layout::template channel<N>(a.shift, c);
    }
    if constexpr (INPUTS == 2) {
      k.mean2 = Layout::template channel<N>(a2.mean, c);
    }
    Sums<N> s = terms<N>(k, offset);
#pragma GCC unroll 4
    for (int r = 1; r < R; ++r) {
      Sums<N> t = terms<N>(k, offset + r * stride);
      s.g += t.g;
      s.gd += t.gd;
      s.gd2 += t.gd2;
    }
    A* slot = tile + Layout::slot(c);
    accumulate<N>(slot, s.g);
    if constexpr (INPUTS >= 1) {
      accumulate<N>(slot + slots, s.gd);
    }
    if constexpr (INPUTS == 2) {
      accumulate<N>(slot + 2 * slots, s.gd2);
    }
  }

  RF_MEMBER void drain(Rows, int64_t) {
    for (int64_t k = 0; k <= INPUTS; ++k) {
      for (int64_t c = 0; c < channels; ++c) {
        total[k * slots + c] += tile[k * slots + c];
        tile[k * slots + c] = 0;
      }
    }
  }
  RF_MEMBER void drain(Planes, int64_t c, int64_t) {
    for (int64_t k = 0; k <= INPUTS; ++k) {
      total[k * slots + c] += drain_lanes(tile + k * slots);
    }
  }
};

template <typename Layout, typename T, Mask MASK, int INPUTS, bool STORE>
void run_backward_reduce(const BackwardReduceTask& p, int64_t chunk, int64_t begin, int64_t end) {
  using A = Acc<T>;
  int64_t channels = p.shape.channels, slots = p.scratch.slots;
  double* total = (double*)(p.scratch.data + chunk * p.scratch.stride);
  A* tile = (A*)(total + 3 * slots);
  BackwardReduceBody<Layout, T, MASK, INPUTS, STORE> body{
      (const T*)p.grad, (const T*)p.out, (const T*)p.x, (const T*)p.x2, (T*)(MASK == Mask::kOutput ? p.masked : p.operand),
      affine_rows<A>(p.affine, channels), affine_rows<A>(p.affine2, channels),
      total, tile, channels, slots, relu_floor<A>(MASK == Mask::kAffine)};
  sweep_tiles<A>(Layout{}, body, p.shape, begin, end);
}

template <typename Layout, typename T, Mask MASK>
void backward_reduce_mask(const BackwardReduceTask& p, int64_t chunk, int64_t begin, int64_t end) {
  if constexpr (MASK == Mask::kOutput) {
    if (p.masked) {
      return p.x2 ? run_backward_reduce<Layout, T, MASK, 2, true>(p, chunk, begin, end)
                  : run_backward_reduce<Layout, T, MASK, 1, true>(p, chunk, begin, end);
    }
  } else if (p.operand) {  // its own ReLU is the mask
    return run_backward_reduce<Layout, T, MASK, 1, true>(p, chunk, begin, end);
  }
  if (p.x2) {
    run_backward_reduce<Layout, T, MASK, 2, false>(p, chunk, begin, end);
  } else if (p.x) {
    run_backward_reduce<Layout, T, MASK, 1, false>(p, chunk, begin, end);
  } else if constexpr (MASK != Mask::kAffine) {
    run_backward_reduce<Layout, T, MASK, 0, false>(p, chunk, begin, end);
  }
}

template <typename Layout, typename T>
void backward_reduce_layout(const BackwardReduceTask& p, int64_t chunk, int64_t begin, int64_t end) {
  switch (p.mask) {
    case Mask::kNone:
      return backward_reduce_mask<Layout, T, Mask::kNone>(p, chunk, begin, end);
    case Mask::kOutput:
      return backward_reduce_mask<Layout, T, Mask::kOutput>(p, chunk, begin, end);
    case Mask::kAffine:
      return backward_reduce_mask<Layout, T, Mask::kAffine>(p, chunk, begin, end);
    case Mask::kBits:
      return;  // not on a CPU
  }
}

template <typename T>
void backward_reduce(const BackwardReduceTask& p, int64_t chunk, int64_t begin, int64_t end) {
  if (p.shape.channels_last) {
    backward_reduce_layout<Rows, T>(p, chunk, begin, end);
  } else {
    backward_reduce_layout<Planes, T>(p, chunk, begin, end);
  }
}

// draw from g and d = x - mean
template <typename V>
RF_INLINE V bn_draw(V g, V d, V mean_g, V slope, V scale) {
  return scale * fma(-slope, d, g - mean_g);
}

template <typename Layout, typename T, Mask MASK>
struct BackwardApplyBody {
  using A = Acc<T>;
  const T *grad, *out, *x;
  T* draw;
  AffineRows<A> a;
  const A *mean_g, *slope;

  template <int N, int R>
  RF_MEMBER void step(int64_t offset, int64_t stride, int64_t c) {
    using V = Vec<A, N>;
    V mean = Layout::template channel<N>(a.mean, c);
    V scale = Layout::template channel<N>(a.scale, c);
    V shift = Layout::template channel<N>(a.shift, c);
    V mg = Layout::template channel<N>(mean_g, c);
    V k = Layout::template channel<N>(slope, c);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r, offset += stride) {
      V g = load<N>(grad + offset);
      V d = load<N>(x + offset) - mean;
      if constexpr (MASK == Mask::kOutput) {
        g = zero_up_to(V{}, load<N>(out + offset), g);
      } else if constexpr (MASK == Mask::kAffine) {
        g = zero_up_to(V{}, fma(d, scale, shift), g);
      }
      store<N>(draw + offset, bn_draw(g, d, mg, k, scale));
    }
  }
};

template <typename Layout, typename T, Mask MASK>
void run_backward_apply(const BackwardApplyTask& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  BackwardApplyBody<Layout, T, MASK> body{
      (const T*)p.grad, (const T*)p.out, (const T*)p.x, (T*)p.draw,
      affine_rows<A>(p.affine, p.shape.channels), (const A*)p.mean_g, (const A*)p.slope};
  sweep<A>(Layout{}, body, p.shape, begin, end);
}

template <typename Layout, typename T>
void backward_apply_layout(const BackwardApplyTask& p, int64_t begin, int64_t end) {
  switch (p.mask) {
    case Mask::kNone:
      return run_backward_apply<Layout, T, Mask::kNone>(p, begin, end);
    case Mask::kOutput:
      return run_backward_apply<Layout, T, Mask::kOutput>(p, begin, end);
    case Mask::kAffine:
      return run_backward_apply<Layout, T, Mask::kAffine>(p, begin, end);
    case Mask::kBits:
      return;  // not on a CPU
  }
}

template <typename T>
void backward_apply(const BackwardApplyTask& p, int64_t, int64_t begin, int64_t end) {
  if (p.shape.channels_last) {
    backward_apply_layout<Rows, T>(p, begin, end);
  } else {
    backward_apply_layout<Planes, T>(p, begin, end);
  }
}
