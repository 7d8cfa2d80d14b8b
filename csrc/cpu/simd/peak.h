// Multiply-adds on registers alone: as many independent chains as hide their latency.

constexpr int kChains = 12;

float multiply_add(int64_t count) {
  constexpr int L = kLanes<float>;
  using V = Vec<float, L>;
  V chains[kChains], factor = splat<L>(1.0f + 1e-7f), term = splat<L>(1e-9f);
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) {
    chains[i] = splat<L>((float)i);
  }
  for (int64_t n = 0; n < count; ++n) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) {
      chains[i] = fma(chains[i], factor, term);
    }
  }
  float total = 0;
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) {
    total += chains[i][0];
  }
  return total;
}
