// Mean and M2 = sum (x - mean)^2 per channel, in two stages: every block those of its rows, then one block per few
// channels those of all. The block's sums are of x - pivot and its square, with a pivot near the mean, so that nothing
// cancels; parts are merged as by Chan, Golub and LeVeque 1979 (Updating formulae and a pairwise algorithm for
// computing sample variances), formula 1.5, for all parts at once.
#pragma once

#include "reduce.cuh"

namespace resnet_fused::cuda {

// One outlier moves a pivot by an eighth: too little to matter among the rows of a block.
constexpr int kPivotRows = 8;

struct BnStatisticsParams {
  Sweep sweep;
  const void* x;
  double* partial;  // [chunks][2][channels]: mean, M2
};

template <typename T, int N, bool kChannelsLast>
struct StatisticsBody {
  using A = Acc<T>;
  static constexpr int kLoads = 4;
  static constexpr int kCount = kChannels<N, kChannelsLast>;
  const T* x;
  PerChannel<A, kCount> pivot;
  A sum[N], square[N];

  __device__ StatisticsBody(const T* x, const Sweep& s, const Place& at) : x(x), sum{}, square{} {
    // The same for all of a block's threads that share a channel: the mean of the chunk's first elements.
    int64_t row = at.chunk * s.chunk_rows, segment = row % s.segments;
    A total[kCount] = {};
    int64_t count = min(int64_t{kPivotRows}, kChannelsLast ? at.end - row : s.pixels - segment * s.length);
    if constexpr (kChannelsLast) {
      for (int64_t k = 0; k < count && at.channel < s.channels; ++k) {
        Packed<T, N> values = load((row + k) * s.channels + at.channel);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          total[i] += to_acc(values[i]);
        }
      }
    } else {
      const T* first = x + ((row / s.segments) * s.channels + at.tile) * s.pixels + segment * s.length;
      for (int64_t k = 0; k < count; ++k) {
        total[0] += to_acc(first[k]);
      }
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      A mean = total[i] / A(count);
      pivot.value[i] = mean - mean == A(0) ? mean : A(0);  // not of infinities
    }
  }
  __device__ Packed<T, N> load(int64_t offset) const {
    return resnet_fused::cuda::load<N>(x + offset);
  }
  __device__ void use(const Packed<T, N>& values, int64_t) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      A d = to_acc(values[i]) - pivot[i];
      sum[i] += d;
      square[i] = multiply_add(d, d, square[i]);
    }
  }
};

template <typename T, int N, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, 2) bn_statistics_kernel(BnStatisticsParams p) {
  using A = Acc<T>;
  __shared__ A memory[kThreads * N];
  const Sweep& s = p.sweep;
  Place at(s, N);
  StatisticsBody<T, N, kChannelsLast> body(static_cast<const T*>(p.x), s, at);
  sweep<N, kChannelsLast>(s, at, body);
  A pivot[N] = {};  // as a sum too, of one thread's, to come where the others do
  if (threadIdx.x < (kChannelsLast ? 1 << s.lanes_log2 : 1)) {
#pragma unroll
    for (int i = 0; i < body.kCount; ++i) {
      pivot[i] = body.pivot[i];
    }
  }
  double n = static_cast<double>(elements_before(s, at.end) - elements_before(s, at.chunk * s.chunk_rows));
  double sum = 0, square = 0;
  reduce_block<N, kChannelsLast>(s, body.sum, memory, [&](int, A total) { sum = total; });
  reduce_block<N, kChannelsLast>(s, body.square, memory, [&](int, A total) { square = total; });
  reduce_block<N, kChannelsLast>(s, pivot, memory, [&](int i, A k) {
    int64_t channel = (kChannelsLast ? (at.tile << s.lanes_log2) * N : at.tile) + i;
    if (channel < s.channels) {
      double mean = sum / n, m2 = square - sum * mean;
      double* partial = p.partial + 2 * at.chunk * s.channels + channel;
      partial[0] = k + mean;
      partial[s.channels] = zero_up_to_zero(m2, m2);
    }
  });
}

// A block's share of the second stage: so many channels, of which each has the parts shared out in so many slices.
constexpr int kMergeChannels = 8;
constexpr int kMergeSlices = kThreads / kMergeChannels;

struct MergeStatisticsParams {
  Sweep sweep;
  const double* partial;  // [chunks][2][channels]
  void* stats;            // acc [2, channels]
};

// Sums over the slices of a channel, for all of its threads, in a fixed order.
__device__ inline double sum_slices(double value, double (&memory)[kThreads / kWarp][kMergeChannels]) {
  int channel = threadIdx.x % kMergeChannels;
#pragma unroll
  for (int distance = kMergeChannels; distance < kWarp; distance *= 2) {
    value += __shfl_xor_sync(0xffffffff, value, distance);
  }
  __syncthreads();
  if (threadIdx.x % kWarp < kMergeChannels) {
    memory[threadIdx.x / kWarp][channel] = value;
  }
  __syncthreads();
  double total = 0;
#pragma unroll
  for (int warp = 0; warp < kThreads / kWarp; ++warp) {
    total += memory[warp][channel];
  }
  return total;
}

// With d_i = mean_i - q, q the first mean: mean = q + sum n_i d_i / n, M2 = sum (M2_i + n_i d_i^2) - n (mean - q)^2.
// One pass over the parts, and no division for each: in float64 those take longest.
template <typename A>
__global__ void __launch_bounds__(kThreads, 2) merge_statistics_kernel(MergeStatisticsParams p) {
  __shared__ double memory[kThreads / kWarp][kMergeChannels];
  const Sweep& s = p.sweep;
  int64_t channel = int64_t{blockIdx.x} * kMergeChannels + threadIdx.x % kMergeChannels;
  int slice = threadIdx.x / kMergeChannels;
  bool inside = channel < s.channels;
  auto count = [&](int64_t chunk) {
    int64_t begin = chunk * s.chunk_rows, end = min(begin + s.chunk_rows, s.rows);
    return static_cast<double>(s.channels_last ? end - begin : elements_before(s, end) - elements_before(s, begin));
  };
  double q = inside ? p.partial[channel] : 0.0, sum = 0, square = 0;
  q = q - q == 0.0 ? q : 0.0;  // not infinity
#pragma unroll 4
  for (int64_t i = slice; i < s.chunks; i += kMergeSlices) {
    if (inside) {
      const double* partial = p.partial + 2 * i * s.channels + channel;
      double d = partial[0] - q, weighted = count(i) * d;
      sum += weighted;
      square += partial[s.channels] + weighted * d;
    }
  }
  sum = sum_slices(sum, memory);
  square = sum_slices(square, memory);
  if (inside && slice == 0) {
    A* stats = static_cast<A*>(p.stats);
    double mean = sum / static_cast<double>(elements_before(s, s.rows)), m2 = square - sum * mean;
    stats[channel] = static_cast<A>(q + mean);
    stats[s.channels + channel] = static_cast<A>(zero_up_to_zero(m2, m2));
  }
}

struct BnFinalizeParams {
  int64_t channels;
  const void *mean, *m2, *weight, *bias;
  double count, eps;
  void* affine;
};

template <typename A>
__global__ void __launch_bounds__(kThreads, 2) bn_finalize_kernel(BnFinalizeParams p) {
  int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= p.channels) {
    return;
  }
  const A* m2 = static_cast<const A*>(p.m2);
  A* affine = static_cast<A*>(p.affine);
  double invstd = 1 / sqrt(static_cast<double>(m2[c]) / p.count + p.eps);
  affine[c] = static_cast<const A*>(p.mean)[c];
  affine[p.channels + c] = static_cast<A>(p.weight ? static_cast<const A*>(p.weight)[c] * invstd : invstd);
  affine[2 * p.channels + c] = p.bias ? static_cast<const A*>(p.bias)[c] : A(0);
  affine[3 * p.channels + c] = static_cast<A>(invstd);
}

}  // namespace resnet_fused::cuda
