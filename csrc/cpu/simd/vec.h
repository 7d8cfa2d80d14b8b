// Vectors of N lanes of T, with N = 1 for the ragged ends, so that one expression serves
// both and rounds alike. Included once per instruction set, inside its namespace.

#define RF_INLINE static inline __attribute__((always_inline))
#define RF_MEMBER inline __attribute__((always_inline))

template <typename T, int N>
struct VecType {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <typename T, int N>
using Vec = typename VecType<T, N>::type;

// The type that activations of type T are computed in, and the integer of its size.
template <typename T>
struct AccType;
template <>
struct AccType<float> {
  using type = float;
};
template <>
struct AccType<double> {
  using type = double;
};
template <>
struct AccType<bfloat16> {
  using type = float;
};
template <>
struct AccType<float16> {
  using type = float;
};
template <typename T>
using Acc = typename AccType<T>::type;

template <typename A>
struct MaskType;
template <>
struct MaskType<float> {
  using type = int32_t;
};
template <>
struct MaskType<double> {
  using type = int64_t;
};
template <typename A>
using Int = typename MaskType<A>::type;

template <typename A>
constexpr int kLanes = RESNET_FUSED_VECTOR_BYTES / sizeof(A);

template <int N, typename A>
RF_INLINE Vec<A, N> splat(A value) {
  return value - Vec<A, N>{};  // a vector operand broadcasts a scalar one; -0 stays -0
}

template <int N>
RF_INLINE Vec<float, N> load(const float* p) {
  Vec<float, N> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <int N>
RF_INLINE Vec<double, N> load(const double* p) {
  Vec<double, N> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <int N>
RF_INLINE Vec<float, N> load(const bfloat16* p) {
  Vec<uint16_t, N> half;
  __builtin_memcpy(&half, p, sizeof half);
  return (Vec<float, N>)(__builtin_convertvector(half, Vec<uint32_t, N>) << 16);
}

template <int N>
RF_INLINE void store(float* p, Vec<float, N> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <int N>
RF_INLINE void store(double* p, Vec<double, N> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
// Rounds to nearest even; a NaN stays one (the carry could turn it into an infinity).
template <int N>
RF_INLINE void store(bfloat16* p, Vec<float, N> v) {
  using Bits = Vec<uint32_t, N>;
  Bits bits = (Bits)v;
  Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  Bits quiet = (bits >> 16) | 0x40;
  Vec<uint16_t, N> half = __builtin_convertvector(v == v ? rounded : quiet, Vec<uint16_t, N>);
  __builtin_memcpy(p, &half, sizeof half);
}

#if RESNET_FUSED_VECTOR_BYTES > 16
RF_INLINE Vec<float, 8> widen(Vec<uint16_t, 8> half) {
  return _mm256_cvtph_ps((__m128i)half);
}
RF_INLINE Vec<uint16_t, 8> narrow(Vec<float, 8> v) {
  return (Vec<uint16_t, 8>)_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
}
#if RESNET_FUSED_VECTOR_BYTES == 64  // masked with ones: of the others' undefined operands GCC 12 warns
RF_INLINE Vec<float, 16> widen(Vec<uint16_t, 16> half) {
  return _mm512_maskz_cvtph_ps(0xffff, (__m256i)half);
}
RF_INLINE Vec<uint16_t, 16> narrow(Vec<float, 16> v) {
  return (Vec<uint16_t, 16>)_mm512_maskz_cvtps_ph(0xffff, v, _MM_FROUND_TO_NEAREST_INT);
}
#endif
template <int N>
RF_INLINE Vec<float, N> load(const float16* p) {
  Vec<uint16_t, N < 8 ? 8 : N> half{};
  __builtin_memcpy(&half, p, N * sizeof *p);
  auto wide = widen(half);
  Vec<float, N> v;
  __builtin_memcpy(&v, &wide, sizeof v);
  return v;
}
template <int N>
RF_INLINE void store(float16* p, Vec<float, N> v) {
  Vec<float, N < 8 ? 8 : N> wide{};
  __builtin_memcpy(&wide, &v, sizeof v);
  auto half = narrow(wide);
  __builtin_memcpy(p, &half, N * sizeof *p);
}
#else
template <int N>
RF_INLINE Vec<float, N> load(const float16* p) {
  Vec<uint16_t, N> half;
  __builtin_memcpy(&half, p, sizeof half);
  using Bits = Vec<uint32_t, N>;
  Bits bits = __builtin_convertvector(half, Bits), magnitude = bits & 0x7fff;
  // Subnormals count 2^-24, the last bit of 0.5. Infinities and NaNs keep the highest exponent.
  Bits small = (Bits)((Vec<float, N>)(magnitude + 0x3f000000) - 0.5f);
  Bits large = (magnitude << 13) + (magnitude < 0x7c00 ? Bits{} + (112 << 23) : Bits{} + (224 << 23));
  return (Vec<float, N>)((magnitude < 0x400 ? small : large) | (bits & 0x8000) << 16);
}
// Rounds to nearest even: below 2^-14 as the sum with 0.5 does, from 65520 to infinity.
template <int N>
RF_INLINE void store(float16* p, Vec<float, N> v) {
  using Bits = Vec<uint32_t, N>;
  Bits bits = (Bits)v, magnitude = bits & 0x7fffffff;
  Bits small = (Bits)((Vec<float, N>)magnitude + 0.5f) - 0x3f000000;
  Bits large = ((magnitude + 0xfff + ((magnitude >> 13) & 1)) >> 13) - (112 << 10);
  large = large < 0x7c00 ? large : Bits{} + 0x7c00;
  Bits number = magnitude < (113 << 23) ? small : large;
  Bits rounded = (v == v ? number : Bits{} + 0x7e00) | (bits >> 16 & 0x8000);
  Vec<uint16_t, N> half = __builtin_convertvector(rounded, Vec<uint16_t, N>);
  __builtin_memcpy(p, &half, sizeof half);
}
#endif

// The value as memory of type T will hold it.
template <typename T, int N, typename V>
RF_INLINE V rounded(V v) {
  if constexpr (sizeof(T) == 2) {
    T memory[N];
    store<N>(memory, v);
    return load<N>(memory);
  }
  return v;
}

// Index bytes 0..8 and 255, widened to the lanes of A. By intrinsics where GCC 12 takes each byte apart.
template <int N, typename A>
RF_INLINE Vec<Int<A>, N> load_index(const uint8_t* p) {
#if RESNET_FUSED_VECTOR_BYTES == 64
  if constexpr (sizeof(A) == 4 && N == 16) {
    return (Vec<Int<A>, N>)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
  }
#elif RESNET_FUSED_VECTOR_BYTES == 32
  if constexpr (sizeof(A) == 4 && N == 8) {
    return (Vec<Int<A>, N>)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
  }
#endif
  Vec<uint8_t, N> bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(bytes, Vec<Int<A>, N>);
}
template <int N, typename A>
RF_INLINE void store_index(uint8_t* p, Vec<Int<A>, N> index) {
#if RESNET_FUSED_VECTOR_BYTES == 64
  if constexpr (sizeof(A) == 4 && N == 16) {
    return _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8((__m512i)index));
  }
#elif RESNET_FUSED_VECTOR_BYTES == 32
  if constexpr (sizeof(A) == 4 && N == 8) {
    __m128i low = _mm256_castsi256_si128((__m256i)index), high = _mm256_extracti128_si256((__m256i)index, 1);
    __m128i words = _mm_packs_epi32(low, high);
    return _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(words, words));
  }
#endif
  Vec<uint8_t, N> bytes = __builtin_convertvector(index, Vec<uint8_t, N>);
  __builtin_memcpy(p, &bytes, sizeof bytes);
}

// a * b + c, fused where the target has the instruction, in the vector as in the single lane:
// the ReLU mask of the backward pass must not depend on which of them computed it.
// (Not __FMA__: GCC 12 does not define it for a target that a pragma sets.)
#if RESNET_FUSED_VECTOR_BYTES > 16
RF_INLINE Vec<float, 1> fma(Vec<float, 1> a, Vec<float, 1> b, Vec<float, 1> c) {
  return Vec<float, 1>{__builtin_fmaf(a[0], b[0], c[0])};
}
RF_INLINE Vec<double, 1> fma(Vec<double, 1> a, Vec<double, 1> b, Vec<double, 1> c) {
  return Vec<double, 1>{__builtin_fma(a[0], b[0], c[0])};
}
#if RESNET_FUSED_VECTOR_BYTES == 64
RF_INLINE Vec<float, 16> fma(Vec<float, 16> a, Vec<float, 16> b, Vec<float, 16> c) {
  return _mm512_fmadd_ps(a, b, c);
}
RF_INLINE Vec<double, 8> fma(Vec<double, 8> a, Vec<double, 8> b, Vec<double, 8> c) {
  return _mm512_fmadd_pd(a, b, c);
}
#else
RF_INLINE Vec<float, 8> fma(Vec<float, 8> a, Vec<float, 8> b, Vec<float, 8> c) {
  return _mm256_fmadd_ps(a, b, c);
}
RF_INLINE Vec<double, 4> fma(Vec<double, 4> a, Vec<double, 4> b, Vec<double, 4> c) {
  return _mm256_fmadd_pd(a, b, c);
}
#endif
#else
template <typename V>
RF_INLINE V fma(V a, V b, V c) {
#if defined(__FP_FAST_FMAF) && defined(__FP_FAST_FMA)
  V r;
  for (unsigned i = 0; i < sizeof(V) / sizeof(a[0]); ++i) {
    if constexpr (sizeof(a[0]) == 4) {
      r[i] = __builtin_fmaf(a[i], b[i], c[i]);
    } else {
      r[i] = __builtin_fma(a[i], b[i], c[i]);
    }
  }
  return r;
#else
  return a * b + c;
#endif
}
#endif

// z = (x - mean) * scale + shift: the one expression that forward and backward share.
template <typename V>
RF_INLINE V affine(V x, V mean, V scale, V shift) {
  return fma(x - mean, scale, shift);
}

// Zero where value <= floor. A floor of 0 is ReLU (NaN passes), a floor of NaN is the identity.
template <typename V>
RF_INLINE V zero_up_to(V floor, V value, V kept) {
  return value <= floor ? V{} : kept;
}

template <typename A>
RF_INLINE A relu_floor(bool relu) {
  return relu ? A(0) : A(__builtin_nan(""));
}

RF_INLINE int64_t minimum(int64_t a, int64_t b) {
  return a < b ? a : b;
}
