// Winograd's minimal filtering F(4x4, 3x3): y = A'[(G g G') * (B' d B)]A for a 6x6 tile d of the input, 36 products for
// what takes 144 (Winograd 1980; Lavin & Gray 2015, section 4.1), at the points 0, +-5/8, +-3/2 and infinity, whose
// rounding errors are less than half of those at 0, +-1, +-2. Gradients of the weights: G'[(A dy A') * (B' d B)]G.
// One-dimensional transforms of six or fewer vectors; the rows' and the columns' are the same.

template <typename A>
struct WinogradPoints {
  static constexpr A a = 0.625, b = 1.5;
  static constexpr A a2 = a * a, b2 = b * b, a3 = a2 * a, b3 = b2 * b;
  // Rows of G: (1, p, p^2) / product of (p - q) over the other points q.
  static constexpr A g0 = 1 / (a2 * b2), ga = 1 / (2 * a2 * (a2 - b2)), gb = 1 / (2 * b2 * (b2 - a2));
};

// o = B' d
template <typename A, typename V>
RF_INLINE void input_transform(const V (&d)[6], V (&o)[6]) {
  using P = WinogradPoints<A>;
  constexpr int N = sizeof(V) / sizeof(A);
  const V a = splat<N>(P::a), b = splat<N>(P::b), a2 = splat<N>(P::a2), b2 = splat<N>(P::b2);
  const V product = splat<N>(P::a2 * P::b2), sum = splat<N>(P::a2 + P::b2);
  o[0] = fma(product, d[0], fma(-sum, d[2], d[4]));
  o[5] = fma(product, d[1], fma(-sum, d[3], d[5]));
  V even = fma(-b2, d[2], d[4]), odd = fma(-b2, d[1], d[3]);
  o[1] = fma(a, odd, even);
  o[2] = fma(-a, odd, even);
  even = fma(-a2, d[2], d[4]), odd = fma(-a2, d[1], d[3]);
  o[3] = fma(b, odd, even);
  o[4] = fma(-b, odd, even);
}

// o = A' m
template <typename A, typename V>
RF_INLINE void output_transform(const V (&m)[6], V (&o)[4]) {
  using P = WinogradPoints<A>;
  constexpr int N = sizeof(V) / sizeof(A);
  V sa = m[1] + m[2], da = m[1] - m[2], sb = m[3] + m[4], db = m[3] - m[4];
  o[0] = m[0] + (sa + sb);
  o[1] = fma(splat<N>(P::a), da, splat<N>(P::b) * db);
  o[2] = fma(splat<N>(P::a2), sa, splat<N>(P::b2) * sb);
  o[3] = fma(splat<N>(P::a3), da, fma(splat<N>(P::b3), db, m[5]));
}

// o = A y
template <typename A, typename V>
RF_INLINE void gradient_transform(const V (&y)[4], V (&o)[6]) {
  using P = WinogradPoints<A>;
  constexpr int N = sizeof(V) / sizeof(A);
  o[0] = y[0];
  o[5] = y[3];
  V even = fma(splat<N>(P::a2), y[2], y[0]), odd = splat<N>(P::a) * fma(splat<N>(P::a2), y[3], y[1]);
  o[1] = even + odd;
  o[2] = even - odd;
  even = fma(splat<N>(P::b2), y[2], y[0]), odd = splat<N>(P::b) * fma(splat<N>(P::b2), y[3], y[1]);
  o[3] = even + odd;
  o[4] = even - odd;
}

// o = G g
template <typename A, typename V>
RF_INLINE void weight_transform(const V (&g)[3], V (&o)[6]) {
  using P = WinogradPoints<A>;
  constexpr int N = sizeof(V) / sizeof(A);
  o[0] = splat<N>(P::g0) * g[0];
  o[5] = g[2];
  V even = splat<N>(P::ga) * fma(splat<N>(P::a2), g[2], g[0]), odd = splat<N>(P::ga * P::a) * g[1];
  o[1] = even + odd;
  o[2] = even - odd;
  even = splat<N>(P::gb) * fma(splat<N>(P::b2), g[2], g[0]), odd = splat<N>(P::gb * P::b) * g[1];
  o[3] = even + odd;
  o[4] = even - odd;
}

// o = G' s
template <typename A, typename V>
RF_INLINE void weight_gradient_transform(const V (&s)[6], V (&o)[3]) {
  using P = WinogradPoints<A>;
  constexpr int N = sizeof(V) / sizeof(A);
  V sa = splat<N>(P::ga) * (s[1] + s[2]), sb = splat<N>(P::gb) * (s[3] + s[4]);
  o[0] = fma(splat<N>(P::g0), s[0], sa + sb);
  o[1] = fma(splat<N>(P::ga * P::a), s[1] - s[2], splat<N>(P::gb * P::b) * (s[3] - s[4]));
  o[2] = fma(splat<N>(P::a2), sa, fma(splat<N>(P::b2), sb, s[5]));
}
