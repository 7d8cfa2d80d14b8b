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

// Rows and columns exchanged in squares, a row a vector.
constexpr int64_t kSquareSide = 4;

template <typename From, typename To>
RF_INLINE void transpose_square(const From* source, int64_t source_row, To* target, int64_t target_row) {
  using V = Vec<Acc<From>, kSquareSide>;
  V r0 = load<kSquareSide>(source), r1 = load<kSquareSide>(source + source_row);
  V r2 = load<kSquareSide>(source + 2 * source_row), r3 = load<kSquareSide>(source + 3 * source_row);
  V low01 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), high01 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
  V low23 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5), high23 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
  store<kSquareSide>(target, (V)__builtin_shufflevector(low01, low23, 0, 1, 4, 5));
  store<kSquareSide>(target + target_row, (V)__builtin_shufflevector(low01, low23, 2, 3, 6, 7));
  store<kSquareSide>(target + 2 * target_row, (V)__builtin_shufflevector(high01, high23, 0, 1, 4, 5));
  store<kSquareSide>(target + 3 * target_row, (V)__builtin_shufflevector(high01, high23, 2, 3, 6, 7));
}

// target[j][i] = source[i][j]; elements of a row follow each other.
template <typename From, typename To>
RF_INLINE void transpose(const From* source, int64_t source_row, int64_t rows, int64_t columns, To* target,
                         int64_t target_row) {
  int64_t i = 0;
  for (; i + kSquareSide <= rows; i += kSquareSide) {
    int64_t j = 0;
    for (; j + kSquareSide <= columns; j += kSquareSide) {
      transpose_square(source + i * source_row + j, source_row, target + j * target_row + i, target_row);
    }
    for (; j < columns; ++j) {
      for (int64_t k = i; k < i + kSquareSide; ++k) {
        store<1>(target + j * target_row + k, load<1>(source + k * source_row + j));
      }
    }
  }
  for (; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      store<1>(target + j * target_row + i, load<1>(source + i * source_row + j));
    }
  }
}

template <typename A>
RF_INLINE void zero(A* data, int64_t rows, int64_t columns, int64_t row) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      data[i * row + j] = 0;
    }
  }
}

// One group: target[c][column], zero in the rows and columns that are not there.
template <typename T>
RF_INLINE void pack_group(const PackWeightsParams& p, const T* source, int64_t channels, int64_t columns, int64_t rows,
                          Acc<T>* target) {
  constexpr int L = kLanes<Acc<T>>;
  constexpr int64_t kColumns = kMicroColumns<Acc<T>>;
  if (p.strides.in == 1 && p.strides.out != 1) {
    transpose(source, p.strides.out, columns, channels, target, kColumns);
  } else {
    for (int64_t c = 0; c < channels; ++c) {
      int64_t j = 0;
      for (; p.strides.out == 1 && j + L <= columns; j += L) {
        store<L>(target + c * kColumns + j, load<L>(source + c * p.strides.in + j));
      }
      for (; j < columns; ++j) {
        target[c * kColumns + j] = load<1>(source + c * p.strides.in + j * p.strides.out)[0];
      }
    }
  }
  zero(target + columns, channels, kColumns - columns, kColumns);
  zero(target + channels * kColumns, rows - channels, kColumns, kColumns);
}

// The inverse, without the rows and columns that are not there.
template <typename T>
RF_INLINE void unpack_group(const PackWeightsParams& p, const Acc<T>* source, int64_t channels, int64_t columns,
                            T* target) {
  constexpr int64_t kColumns = kMicroColumns<Acc<T>>;
  if (p.strides.in == 1) {
    return transpose(source, kColumns, channels, columns, target, p.strides.out);
  }
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t j = 0; j < columns; ++j) {
      store<1>(target + c * p.strides.in + j * p.strides.out, Vec<Acc<T>, 1>{source[c * kColumns + j]});
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
  each_group(p, [&](int64_t offset, int64_t channels, int64_t row) __attribute__((always_inline)) {
    pack_group(p, weights + offset, channels, columns, p.fold ? channels : kBlock, packed + row * kColumns);
  });
}

// All taps of one block of input channels and one column tile: [tap][kBlock][column].
template <typename T>
void pack_square(const PackWeightsParams& p, int64_t tile, int64_t block, Acc<T>* packed) {
  constexpr int64_t kColumns = kMicroColumns<Acc<T>>;
  int64_t c = block * kBlock, channels = minimum(kBlock, p.in_channels - c);
  int64_t columns = minimum(kColumns, p.out_channels - tile * kColumns);
  const T* weights = (const T*)p.weights + tile * kColumns * p.strides.out + c * p.strides.in;
  for (int64_t t = 0; t < p.tap_count; ++t) {
    pack_group(p, weights + p.taps[t], channels, columns, kBlock, packed + t * kBlock * kColumns);
  }
}
template <typename T>
void unpack_square(const PackWeightsParams& p, int64_t tile, int64_t block, const Acc<T>* packed, T* weights) {
  constexpr int64_t kColumns = kMicroColumns<Acc<T>>;
  int64_t c = block * kBlock, channels = minimum(kBlock, p.in_channels - c);
  int64_t columns = minimum(kColumns, p.out_channels - tile * kColumns);
  weights += tile * kColumns * p.strides.out + c * p.strides.in;
  for (int64_t t = 0; t < p.tap_count; ++t) {
    unpack_group(p, packed + t * kBlock * kColumns, channels, columns, weights + p.taps[t]);
  }
}
