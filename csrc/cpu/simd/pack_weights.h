// Weights between their tensor and the order in which the micro-kernel reads them:
//     packed[column tile][block][tap][c of the block][column], column = output channel, zero where there is none;
// folded (few input channels): packed[column tile][filter row][filter column and channel][column].

template <typename A>
RF_INLINE int64_t packed_depth(const PackWeightsParams& p) {
  return p.fold ? p.tap_count * p.fold * p.in_channels : (p.in_channels + kBlock - 1) / kBlock * p.tap_count * kBlock;
}

// Calls visit(offset of the weights, input channels there, filter columns there, packed row).
template <typename Visit>
RF_INLINE void each_group(const PackWeightsParams& p, Visit visit) {
  int64_t row = 0;
  if (p.fold) {
    for (int64_t t = 0; t < p.tap_count; ++t) {
      for (int64_t s = 0; s < p.fold; ++s, row += p.in_channels) {
        visit(p.taps[t] + s * p.strides.column, p.in_channels, row);
      }
    }
    return;
  }
  for (int64_t c = 0; c < p.in_channels; c += kBlock) {
    for (int64_t t = 0; t < p.tap_count; ++t, row += kBlock) {
      visit(p.taps[t] + c * p.strides.in, minimum(kBlock, p.in_channels - c), row);
    }
  }
}

template <typename T>
void pack_weights(const PackWeightsParams& p, int64_t, int64_t tile) {
  using A = Acc<T>;
  constexpr int64_t kColumns = kMicroColumns<A>;
  A* packed = (A*)p.packed + tile * packed_depth<A>(p) * kColumns;
  int64_t columns = minimum(kColumns, p.out_channels - tile * kColumns);
  const T* weights = (const T*)p.weights + tile * kColumns * p.strides.out;
  __builtin_memset(packed, 0, packed_depth<A>(p) * kColumns * sizeof(A));
  each_group(p, [&](int64_t offset, int64_t channels, int64_t row) __attribute__((always_inline)) {
    A* target = packed + row * kColumns;
    const T* source = weights + offset;
    for (int64_t c = 0; c < channels; ++c, target += kColumns, source += p.strides.in) {
      int64_t j = 0;
      if (p.strides.out == 1) {
        constexpr int L = kLanes<A>;
        for (; j + L <= columns; j += L) {
          store<L>(target + j, load<L>(source + j));
        }
      }
      for (; j < columns; ++j) {
        target[j] = load<1>(source + j * p.strides.out)[0];
      }
    }
  });
}
