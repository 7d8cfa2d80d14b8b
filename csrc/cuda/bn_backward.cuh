// The two passes of batch norm's backward. g is grad where the ReLU passes, that is where its output (or z, computed
// again) is not <= 0, as a mask of the output may say already.
//     reduce: sum g, sum g * xhat, sum g * xhat2 per channel, in two stages
//     apply:  draw = scale * (g - means[0] - xhat * means[1])
// with xhat = (x - mean) * invstd: Ioffe and Szegedy 2015 (Batch normalization), section 3.
#pragma once

#include "../common/params.h"
#include "bn_statistics.cuh"

namespace resnet_fused::cuda {

struct BnBackwardReduceParams {
  Sweep sweep;
  const void *grad, *out, *x, *affine, *x2, *affine2;
  void *operand, *masked;
  const uint8_t* bits;
  Mask mask;
  double* partial;  // [chunks][1..3][channels]
};

template <typename T, int N, bool kChannelsLast>
struct BackwardReduceBody {
  using A = Acc<T>;
  static constexpr int kLoads = 2;
  static constexpr int kCount = kChannels<N, kChannelsLast>;
  const T *grad, *out, *x, *x2;
  T *operand, *masked;
  const uint8_t* bits;
  Mask mask;
  Affine<A, kCount> affine;
  PerChannel<A, kCount> mean2;
  A sum[N], product[N], product2[N];

  struct Loaded {
    Packed<T, N> grad, out, x, x2;
    uint32_t bits;
  };
  __device__ BackwardReduceBody(const BnBackwardReduceParams& p, const Place& at)
      : grad(static_cast<const T*>(p.grad)),
        out(static_cast<const T*>(p.mask == Mask::kOutput ? p.out : nullptr)),
        x(static_cast<const T*>(p.x)),
        x2(static_cast<const T*>(p.x2)),
        operand(static_cast<T*>(p.operand)),
        masked(static_cast<T*>(p.masked)),
        bits(p.mask == Mask::kBits ? p.bits : nullptr),
        mask(p.mask),
        sum{},
        product{},
        product2{} {
    if (x) {
      affine = Affine<A, kCount>(p.affine, p.sweep, at);
    }
    if (x2) {
      mean2 = PerChannel<A, kCount>(static_cast<const A*>(p.affine2), p.sweep, at);
    }
  }
  __device__ Loaded load(int64_t offset) const {
    Loaded loaded;
    loaded.grad = resnet_fused::cuda::load<N>(grad + offset);
    if (out) {
      loaded.out = resnet_fused::cuda::load<N>(out + offset);
    }
    if (x) {
      loaded.x = resnet_fused::cuda::load<N>(x + offset);
    }
    if (bits) {
      loaded.bits = load_bits<N>(bits, offset);
    }
    if (x2) {
      loaded.x2 = resnet_fused::cuda::load<N>(x2 + offset);
    }
    return loaded;
  }
  __device__ void use(const Loaded& loaded, int64_t offset) {
    A operands[N], gradients[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      A g = to_acc(loaded.grad[i]);
      if (bits) {
        g = loaded.bits >> i & 1 ? g : A(0);
      }
      if (out) {
        g = zero_up_to_zero(to_acc(loaded.out[i]), g);
      }
      if (x) {
        A value = to_acc(loaded.x[i]), z = affine(value, i);
        if (mask == Mask::kAffine) {
          g = zero_up_to_zero(z, g);
          z = zero_up_to_zero(z, z);
        }
        operands[i] = z;
        product[i] = multiply_add(g, value - affine.mean[i], product[i]);
      }
      if (x2) {
        product2[i] = multiply_add(g, to_acc(loaded.x2[i]) - mean2[i], product2[i]);
      }
      sum[i] += g;
      gradients[i] = g;
    }
    if (operand) {
      store(operand + offset, operands);
    }
    if (masked) {
      store(masked + offset, gradients);
    }
  }
};

template <typename T, int N, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, 2) bn_backward_reduce_kernel(BnBackwardReduceParams p) {
  using A = Acc<T>;
  __shared__ A memory[kThreads * N];
  const Sweep& s = p.sweep;
  Place at(s, N);
  BackwardReduceBody<T, N, kChannelsLast> body(p, at);
  sweep<N, kChannelsLast>(s, at, body);
  int rows = p.x2 ? 3 : p.x ? 2 : 1;
  int64_t first = kChannelsLast ? (at.tile << s.lanes_log2) * N : at.tile;
  double* partial = p.partial + at.chunk * rows * s.channels + first;
  auto put = [&](int i, A sum) {
    if (first + i < s.channels) {
      partial[i] = sum;
    }
  };
  reduce_block<N, kChannelsLast>(s, body.sum, memory, put);
  if (p.x) {
    partial += s.channels;
    reduce_block<N, kChannelsLast>(s, body.product, memory, put);
  }
  if (p.x2) {
    partial += s.channels;
    reduce_block<N, kChannelsLast>(s, body.product2, memory, put);
  }
}

struct MergeSumsParams {
  int64_t channels, chunks;
  int rows;
  const double* partial;          // [chunks][rows][channels]
  const void *affine, *affine2;   // of the second and the third row, which are multiplied by invstd
  void* sums;                     // acc [rows, channels]
};

template <typename A>
__global__ void __launch_bounds__(kThreads, 2) merge_sums_kernel(MergeSumsParams p) {
  __shared__ double memory[kThreads / kWarp][kMergeChannels];
  int64_t channel = int64_t{blockIdx.x} * kMergeChannels + threadIdx.x % kMergeChannels;
  int slice = threadIdx.x / kMergeChannels;
  bool inside = channel < p.channels;
  for (int row = 0; row < p.rows; ++row) {
    double sum = 0;
#pragma unroll 4
    for (int64_t i = slice; i < p.chunks; i += kMergeSlices) {
      sum += inside ? p.partial[(i * p.rows + row) * p.channels + channel] : 0.0;
    }
    sum = sum_slices(sum, memory);
    if (inside && slice == 0) {
      const A* affine = static_cast<const A*>(row == 2 ? p.affine2 : p.affine);
      static_cast<A*>(p.sums)[row * p.channels + channel] =
          static_cast<A>(row == 0 ? sum : sum * affine[3 * p.channels + channel]);
    }
  }
}

void launch_merge_sums(DType dtype, const MergeSumsParams& params, cudaStream_t stream);

struct BnBackwardApplyParams {
  Sweep sweep;
  const void *grad, *out, *x, *affine, *means;
  void* draw;
  Mask mask;
};

// draw = scale * (g - mean_g - slope * (x - mean)), slope = invstd * means[1]
template <typename A, int kCount>
struct Draw {
  Affine<A, kCount> affine;
  PerChannel<A, kCount> mean_g, slope;

  Draw() = default;
  __device__ Draw(const void* rows, const void* means, const Sweep& s, const Place& at)
      : affine(rows, s, at),
        mean_g(static_cast<const A*>(means), s, at),
        slope(static_cast<const A*>(means) + s.channels, s, at) {
    PerChannel<A, kCount> invstd(static_cast<const A*>(rows) + 3 * s.channels, s, at);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      slope.value[i] *= invstd.value[i];
    }
  }
  __device__ A operator()(A g, A x, int i) const {
    return affine.scale[i] * multiply_add(-slope[i], x - affine.mean[i], g - mean_g[i]);
  }
};

template <typename T, int N, bool kChannelsLast>
struct BackwardApplyBody {
  using A = Acc<T>;
  static constexpr int kLoads = 2;
  const T *grad, *out, *x;
  T* y;
  Mask mask;
  Draw<A, kChannels<N, kChannelsLast>> draw;

  struct Loaded {
    Packed<T, N> grad, out, x;
  };
  __device__ BackwardApplyBody(const BnBackwardApplyParams& p, const Place& at)
      : grad(static_cast<const T*>(p.grad)),
        out(static_cast<const T*>(p.mask == Mask::kOutput ? p.out : nullptr)),
        x(static_cast<const T*>(p.x)),
        y(static_cast<T*>(p.draw)),
        mask(p.mask),
        draw(p.affine, p.means, p.sweep, at) {}
  __device__ Loaded load(int64_t offset) const {
    Loaded loaded;
    loaded.grad = resnet_fused::cuda::load<N>(grad + offset);
    loaded.x = resnet_fused::cuda::load<N>(x + offset);
    if (out) {
      loaded.out = resnet_fused::cuda::load<N>(out + offset);
    }
    return loaded;
  }
  __device__ void use(const Loaded& loaded, int64_t offset) {
    A values[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      A g = to_acc(loaded.grad[i]), value = to_acc(loaded.x[i]);
      if (out) {
        g = zero_up_to_zero(to_acc(loaded.out[i]), g);
      } else if (mask == Mask::kAffine) {
        g = zero_up_to_zero(draw.affine(value, i), g);
      }
      values[i] = draw(g, value, i);
    }
    store(y + offset, values);
  }
};

template <typename T, int N, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, 2) bn_backward_apply_kernel(BnBackwardApplyParams p) {
  Place at(p.sweep, N);
  BackwardApplyBody<T, N, kChannelsLast> body(p, at);
  sweep<N, kChannelsLast>(p.sweep, at, body);
}

}  // namespace resnet_fused::cuda
