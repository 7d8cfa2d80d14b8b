// y = [relu](z(x) + (residual | z(residual) | nothing)), and y = base + masked gradient.

enum class Residual { kNone, kPlain, kAffine };

template <typename Layout, typename T, Residual RESIDUAL>
struct ApplyBody {
  using A = Acc<T>;
  const T* x;
  const T* residual;
  T* y;
  AffineRows<A> a, ra;
  A floor;

  template <int N, int R>
  RF_MEMBER void step(int64_t offset, int64_t stride, int64_t c) {
    using V = Vec<A, N>;
    V mean = Layout::template channel<N>(a.mean, c);
    V scale = Layout::template channel<N>(a.scale, c);
    V shift = Layout::template channel<N>(a.shift, c);
    V mean2{}, scale2{}, shift2{};
    if constexpr (RESIDUAL == Residual::kAffine) {
      mean2 = Layout::template channel<N>(ra.mean, c);
      scale2 = Layout::template channel<N>(ra.scale, c);
      shift2 = Layout::template channel<N>(ra.shift, c);
    }
    V limit = splat<N>(floor);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r, offset += stride) {
      V z = affine(load<N>(x + offset), mean, scale, shift);
      if constexpr (RESIDUAL == Residual::kPlain) {
        z += load<N>(residual + offset);
      } else if constexpr (RESIDUAL == Residual::kAffine) {
        z += affine(load<N>(residual + offset), mean2, scale2, shift2);
      }
      store<N>(y + offset, zero_up_to(limit, z, z));
    }
  }
};

template <typename Layout, typename T, Residual RESIDUAL>
void run_apply(const ApplyParams& p, int64_t begin, int64_t end) {
  using A = Acc<T>;
  int64_t channels = p.shape.channels;
  ApplyBody<Layout, T, RESIDUAL> body{(const T*)p.x, (const T*)p.residual, (T*)p.y,
                                      affine_rows<A>(p.affine, channels),
                                      affine_rows<A>(p.residual_affine, channels),
                                      relu_floor<A>(p.relu)};
  sweep<A>(Layout{}, body, p.shape, begin, end);
}

template <typename Layout, typename T>
void apply_layout(const ApplyParams& p, int64_t begin, int64_t end) {
  if (!p.residual) {
    run_apply<Layout, T, Residual::kNone>(p, begin, end);
  } else if (!p.residual_affine) {
    run_apply<Layout, T, Residual::kPlain>(p, begin, end);
  } else {
    run_apply<Layout, T, Residual::kAffine>(p, begin, end);
  }
}

template <typename T>
void apply(const ApplyParams& p, int64_t, int64_t begin, int64_t end) {
  if (p.shape.channels_last) {
    apply_layout<Rows, T>(p, begin, end);
  } else {
    apply_layout<Planes, T>(p, begin, end);
  }
}

template <typename T, bool BASE, bool MASK>
struct MaskAddBody {
  using A = Acc<T>;
  const T *base, *grad, *out;
  T* y;

  template <int N, int R>
  RF_MEMBER void step(int64_t offset, int64_t stride, int64_t) {
    using V = Vec<A, N>;
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r, offset += stride) {
      V g = load<N>(grad + offset);
      if constexpr (MASK) {
        g = zero_up_to(V{}, load<N>(out + offset), g);
      }
      if constexpr (BASE) {
        g += load<N>(base + offset);
      }
      store<N>(y + offset, g);
    }
  }
};

template <typename T, bool BASE, bool MASK>
void run_mask_add(const MaskAddParams& p, int64_t begin, int64_t end) {
  MaskAddBody<T, BASE, MASK> body{(const T*)p.base, (const T*)p.grad, (const T*)p.out, (T*)p.y};
  sweep_flat<Acc<T>>(body, begin, end, 0);
}

template <typename T>
void mask_add(const MaskAddParams& p, int64_t, int64_t begin, int64_t end) {
  if (p.base && p.out) {
    run_mask_add<T, true, true>(p, begin, end);
  } else if (p.base) {
    run_mask_add<T, true, false>(p, begin, end);
  } else if (p.out) {
    run_mask_add<T, false, true>(p, begin, end);
  } else {
    run_mask_add<T, false, false>(p, begin, end);
  }
}
