// The prologues: operands of the product as functions of the tensors that are in memory. A source has
//     tensors(), tensor(i): what is copied to shared memory for it,
//     forms(): whether the operand is anything else than a copy,
//     form(piece, tile_bytes, channel): turns a copied piece into the operand's, in place; the pieces of the other
//         tensors are `tile_bytes` apart,
//     element(offset, channel): one element of the operand, straight from memory.
// Channels count within the tensor, over all groups.
#pragma once

#include "conv.h"
#include "conv_element.cuh"

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

  __device__ __forceinline__ void form(char* piece, int, int channel) const {
    float v[kPiece<T>];
    read_piece<T>(v, piece);
#pragma unroll
    for (int first = 0; first < kPiece<T>; first += 4) {
      float mean[4], scale[4], shift[4];
      load_constants(mean, affine + channel + first);
      load_constants(scale, affine + channels + channel + first);
      load_constants(shift, affine + 2 * channels + channel + first);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float z = affine_of(v[first + e] - mean[e], scale[e], shift[e]);
        v[first + e] = relu ? zero_up_to_zero(z, z) : z;
      }
    }
    write_piece<T>(piece, v);
  }

  __device__ __forceinline__ T element(int64_t offset, int channel) const {
    T value = load_element(x + offset);
    if (!forms()) {
      return value;
    }
    const float* a = affine + channel;
    float z = affine_of(to_acc(value) - __ldg(a), __ldg(a + channels), __ldg(a + 2 * channels));
    return from_acc<T>(relu ? zero_up_to_zero(z, z) : z);
  }
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

  __device__ __forceinline__ void form(char* piece, int tile_bytes, int channel) const {
    float g[kPiece<T>];
    read_piece<T>(g, piece);
    if (out) {
      float argument[kPiece<T>];
      read_piece<T>(argument, piece + (raw ? 2 : 1) * tile_bytes);
#pragma unroll
      for (int e = 0; e < kPiece<T>; ++e) {
        g[e] = zero_up_to_zero(argument[e], g[e]);
      }
    }
    if (raw) {
      float v[kPiece<T>];
      read_piece<T>(v, piece + tile_bytes);
      form_batch_norm(g, v, channel);
    }
    write_piece<T>(piece, g);
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
  // draw from g, masked unless by the affine, and raw. Four channels at a time, for want of registers.
  __device__ __forceinline__ void form_batch_norm(float (&g)[kPiece<T>], const float (&v)[kPiece<T>],
                                                  int channel) const {
#pragma unroll
    for (int first = 0; first < kPiece<T>; first += 4) {
      float mean[4], scale[4], shift[4], mean_of_g[4], slopes[4];
      load_constants(mean, affine + channel + first);
      load_constants(scale, affine + channels + channel + first);
      load_constants(shift, affine + 2 * channels + channel + first);
      load_constants(mean_of_g, mean_g + channel + first);
      load_constants(slopes, slope + channel + first);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        g[first + e] = draw_of(g[first + e], v[first + e] - mean[e], scale[e], shift[e], mean_of_g[e], slopes[e]);
      }
    }
  }

  __device__ __forceinline__ float draw_of(float g, float centred, float scale, float shift, float mean_of_g,
                                           float slope_of_g) const {
    if (relu && !out) {
      g = zero_up_to_zero(affine_of(centred, scale, shift), g);
    }
    return scale * fmaf(-slope_of_g, centred, g - mean_of_g);
  }
};

}  // namespace resnet_fused::cuda
