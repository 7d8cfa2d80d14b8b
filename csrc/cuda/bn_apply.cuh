// y = [relu](z(x) + (residual | z(residual) | nothing)), and y = base + masked grad: one pass over memory each, bound
// by it. What is asked for is the same for all threads, so branches cost nothing.
#pragma once

#include "../common/params.h"
#include "sweep.cuh"

namespace resnet_fused::cuda {

struct BnApplyParams {
  Sweep sweep;
  const void *x, *affine, *residual, *residual_affine;
  void* y;
  bool relu;
  uint8_t* bits;
};

template <typename T, int N, bool kChannelsLast>
struct ApplyBody {
  using A = Acc<T>;
  static constexpr int kLoads = kChannelsLast && N == 8 ? 3 : 4;  // beside the constants of 8 channels 4 would spill
  static constexpr int kCount = kChannels<N, kChannelsLast>;
  const T *x, *residual;
  T* y;
  uint8_t* bits;
  bool affine_residual, relu;
  Affine<A, kCount> affine, residual_affine;

  struct Loaded {
    Packed<T, N> x, residual;
  };
  __device__ ApplyBody(const BnApplyParams& p, const Place& at)
      : x(static_cast<const T*>(p.x)),
        residual(static_cast<const T*>(p.residual)),
        y(static_cast<T*>(p.y)),
        bits(p.bits),
        affine_residual(p.residual_affine != nullptr),
        relu(p.relu),
        affine(p.affine, p.sweep, at) {
    if (affine_residual) {
      residual_affine = Affine<A, kCount>(p.residual_affine, p.sweep, at);
    }
  }
  __device__ Loaded load(int64_t offset) const {
    Loaded loaded;
    loaded.x = resnet_fused::cuda::load<N>(x + offset);
    if (residual) {
      loaded.residual = resnet_fused::cuda::load<N>(residual + offset);
    }
    return loaded;
  }
  __device__ void use(const Loaded& loaded, int64_t offset) {
    A values[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      A value = affine(to_acc(loaded.x[i]), i);
      if (residual) {
        A r = to_acc(loaded.residual[i]);
        value += affine_residual ? residual_affine(r, i) : r;
      }
      values[i] = relu ? zero_up_to_zero(value, value) : value;
    }
    Packed<T, N> packed = pack<T>(values);
    store(y + offset, packed);
    if (bits) {  // of what is stored: a small value may have become 0
      uint32_t passed = 0;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        passed |= (to_acc(packed[i]) <= A(0) ? 0u : 1u) << i;
      }
      store_bits<N>(bits, offset, passed);
    }
  }
};

template <typename T, int N, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, 2) bn_apply_kernel(BnApplyParams p) {
  Place at(p.sweep, N);
  ApplyBody<T, N, kChannelsLast> body(p, at);
  sweep<N, kChannelsLast>(p.sweep, at, body);
}

struct AddMaskedParams {
  Sweep sweep;
  const void *base, *grad, *out;
  void* y;
};

template <typename T, int N>
struct AddMaskedBody {
  using A = Acc<T>;
  static constexpr int kLoads = 4;
  const T *base, *grad, *out;
  T* y;

  struct Loaded {
    Packed<T, N> base, grad, out;
  };
  __device__ explicit AddMaskedBody(const AddMaskedParams& p)
      : base(static_cast<const T*>(p.base)),
        grad(static_cast<const T*>(p.grad)),
        out(static_cast<const T*>(p.out)),
        y(static_cast<T*>(p.y)) {}
  __device__ Loaded load(int64_t offset) const {
    Loaded loaded;
    loaded.grad = resnet_fused::cuda::load<N>(grad + offset);
    if (base) {
      loaded.base = resnet_fused::cuda::load<N>(base + offset);
    }
    if (out) {
      loaded.out = resnet_fused::cuda::load<N>(out + offset);
    }
    return loaded;
  }
  __device__ void use(const Loaded& loaded, int64_t offset) {
    A values[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      A g = to_acc(loaded.grad[i]);
      g = out ? zero_up_to_zero(to_acc(loaded.out[i]), g) : g;
      values[i] = base ? to_acc(loaded.base[i]) + g : g;
    }
    store(y + offset, values);
  }
};

// The tensor as one plane: no channel matters here.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads, 2) add_masked_kernel(AddMaskedParams p) {
  Place at(p.sweep, N);
  AddMaskedBody<T, N> body(p);
  sweep<N, false>(p.sweep, at, body);
}

}  // namespace resnet_fused::cuda
