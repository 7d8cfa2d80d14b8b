// The prologues: operands of the product as functions of the tensors that are in memory. A source has
//     tensors(), tensor(i): what is copied to shared memory for it,
//     forms(): whether the operand is anything else than a copy,
//     Constants(source, channel): what the operand's values at 4 channels depend on,
//     form(quarter, tile_bytes, constants): turns those 4 channels of a copied piece into the operand's, in place; the
//         pieces of the other tensors are `tile_bytes` apart,
//     form_where(there, quarter, constants): the same, of a source of one tensor; if not there, nothing,
//     element(offset, channel): one element of the operand, straight from memory.
// Channels count within the tensor, over all groups.
#pragma once

#include <type_traits>

#include "arch/relu.cuh"
#include "conv_element.cuh"
#include "heuristics.h"

namespace resnet_fused::cuda {

// The same expression, and thus the same ReLU mask, wherever z is computed; compiled with -fmad=false.
__device__ __forceinline__ float affine_of(float centred, float scale, float shift) {
  return fmaf(centred, scale, shift);
}

// From a vector over the channels, which nobody writes while the kernel runs.
__device__ __forceinline__ void load_constants(float (&v)[4], const float* from) {
  float4 four = __ldg(reinterpret_cast<const float4*>(from));
  v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
}

template <typename T>
struct ActivationSource {
  static constexpr int kMaxTensors = 1;

  const T* x;
  const float* affine;
  int channels;
  bool relu;

  __device__ __forceinline__ ActivationSource(const ActivationTensor& t, int channels)
      : x(static_cast<const T*>(t.x)), affine(t.affine), channels(channels), relu(t.relu) {}

  __device__ __forceinline__ int tensors() const { return 1; }
  __device__ __forceinline__ const T* tensor(int) const { return x; }
  __device__ __forceinline__ bool forms() const { return affine != nullptr; }

  struct Constants {
    float mean[4], scale[4], shift[4];

    __device__ __forceinline__ Constants(const ActivationSource& source, int channel) {
      load_constants(mean, source.affine + channel);
      load_constants(scale, source.affine + source.channels + channel);
      load_constants(shift, source.affine + 2 * source.channels + channel);
    }
  };

  __device__ __forceinline__ void form(char* quarter, int, const Constants& at) const {
    form_where(true, quarter, at);
  }

  __device__ __forceinline__ void form_where(bool there, char* quarter, const Constants& at) const {
    float v[4];
    read_four<T>(v, quarter);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      float z = affine_of(v[e] - at.mean[e], at.scale[e], at.shift[e]);
      v[e] = relu ? relu_of(z) : z;
    }
    if (there) {
      write_four<T>(quarter, v);
    }
  }

  __device__ __forceinline__ T element(int64_t offset, int channel) const {
    T value = load_element(x + offset);
    if (!forms()) {
      return value;
    }
    const float* a = affine + channel;
    float z = affine_of(to_acc(value) - __ldg(a), __ldg(a + channels), __ldg(a + 2 * channels));
    return from_acc<T>(relu ? relu_of(z) : z);
  }
};

// A draw that is in memory as it is.
template <typename T>
struct PlainDrawSource {
  static constexpr int kMaxTensors = 1;

  const T* grad;

  __device__ __forceinline__ PlainDrawSource(const DrawTensor& t, int) : grad(static_cast<const T*>(t.grad)) {}

  __device__ __forceinline__ static constexpr int tensors() { return 1; }
  __device__ __forceinline__ const T* tensor(int) const { return grad; }
  __device__ __forceinline__ static constexpr bool forms() { return false; }

  struct Constants {
    __device__ __forceinline__ Constants(const PlainDrawSource&, int) {}
  };

  __device__ __forceinline__ void form_where(bool, char*, const Constants&) const {}
};

template <typename T>
struct DrawSource {
  static constexpr int kMaxTensors = 3;

  const T *grad, *raw, *out;
  const float *affine, *mean_g, *slope;
  int channels;
  bool relu;

  __device__ __forceinline__ DrawSource(const DrawTensor& t, int channels)
      : grad(static_cast<const T*>(t.grad)),
        raw(static_cast<const T*>(t.raw)),
        out(t.relu ? static_cast<const T*>(t.out) : nullptr),
        affine(t.affine),
        mean_g(t.mean_g),
        slope(t.slope),
        channels(channels),
        relu(t.relu) {}

  __device__ __forceinline__ int tensors() const { return 1 + (raw != nullptr) + (out != nullptr); }
  __device__ __forceinline__ const T* tensor(int i) const { return i == 0 ? grad : i == 1 && raw ? raw : out; }
  __device__ __forceinline__ bool forms() const { return raw || out; }

  struct Constants {
    float mean[4], scale[4], shift[4], mean_g[4], slope[4];

    __device__ __forceinline__ Constants(const DrawSource& source, int channel) {
      if (source.raw) {
        load_constants(mean, source.affine + channel);
        load_constants(scale, source.affine + source.channels + channel);
        load_constants(shift, source.affine + 2 * source.channels + channel);
        load_constants(mean_g, source.mean_g + channel);
        load_constants(slope, source.slope + channel);
      }
    }
  };

  __device__ __forceinline__ void form(char* quarter, int tile_bytes, const Constants& at) const {
    float g[4], v[4];
    read_four<T>(g, quarter);
    if (out) {
      read_four<T>(v, quarter + (raw ? 2 : 1) * tile_bytes);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        g[e] = zero_up_to_zero(v[e], g[e]);
      }
    }
    if (raw) {
      read_four<T>(v, quarter + tile_bytes);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        g[e] = draw_of(g[e], v[e] - at.mean[e], at.scale[e], at.shift[e], at.mean_g[e], at.slope[e]);
      }
    }
    write_four<T>(quarter, g);
  }

  __device__ __forceinline__ T element(int64_t offset, int channel) const {
    float g = to_acc(load_element(grad + offset));
    if (out) {
      g = zero_up_to_zero(to_acc(load_element(out + offset)), g);
    }
    if (raw) {
      const float* a = affine + channel;
      float centred = to_acc(load_element(raw + offset)) - __ldg(a);
      g = draw_of(g, centred, __ldg(a + channels), __ldg(a + 2 * channels), __ldg(mean_g + channel),
                  __ldg(slope + channel));
    }
    return from_acc<T>(g);
  }

 private:
  __device__ __forceinline__ float draw_of(float g, float centred, float scale, float shift, float mean_of_g,
                                           float slope_of_g) const {
    if (relu && !out) {
      g = zero_up_to_zero(affine_of(centred, scale, shift), g);
    }
    return scale * fmaf(-slope_of_g, centred, g - mean_of_g);
  }
};

// Long chunks have room for one tensor of an operand: see has_long_chunks.
template <typename T, typename TileShape>
using DrawOfTile =
    std::conditional_t<TileShape::kRowBytes == kLongRowBytes, PlainDrawSource<T>, DrawSource<T>>;

}  // namespace resnet_fused::cuda
