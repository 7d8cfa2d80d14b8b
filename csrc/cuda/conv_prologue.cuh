// The prologues: operands of the product as functions of the tensors that are in memory. A source has
//     tensors(), tensor(i): what is copied to shared memory for it, and whether that forms() anything else,
//     form(piece, tile_bytes, channel): turns a copied piece into the operand's, in place; the pieces of the other tensors
//         are `tile_bytes` apart,
//     element(offset, channel): one element of the operand, straight from memory.
// Channels count within the tensor, over all groups.
#pragma once

#include "conv.h"
#include "element.cuh"

namespace resnet_fused::cuda {

// The same expression, and thus the same ReLU mask, wherever z is computed; compiled with -fmad=false.
__device__ __forceinline__ float affine_of(float centred, float scale, float shift) { return fmaf(centred, scale, shift); }

__device__ __forceinline__ float zero_up_to_zero(float argument, float value) { return argument <= 0.0f ? 0.0f : value; }

// Vectors over the channels, constant while a kernel runs. `count` is as in load_elements.
template <int COUNT>
__device__ __forceinline__ void load_constants(float (&v)[COUNT], const float* from) {
#pragma unroll
  for (int e = 0; e < COUNT; e += 4) {
    float4 four = __ldg(reinterpret_cast<const float4*>(from + e));
    v[e] = four.x, v[e + 1] = four.y, v[e + 2] = four.z, v[e + 3] = four.w;
  }
}

template <typename T>
struct ActivationSource {
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
    float v[kPiece<T>], mean[kPiece<T>], scale[kPiece<T>], shift[kPiece<T>];
    read_piece<T>(v, piece);
    load_constants(mean, affine + channel);
    load_constants(scale, affine + channels + channel);
    load_constants(shift, affine + 2 * channels + channel);
#pragma unroll
    for (int e = 0; e < kPiece<T>; ++e) {
      float z = affine_of(v[e] - mean[e], scale[e], shift[e]);
      v[e] = relu ? zero_up_to_zero(z, z) : z;
    }
    write_piece<T>(piece, v);
  }

  __device__ __forceinline__ T element(int64_t offset, int channel) const {
    if (!forms()) {
      return x[offset];
    }
    const float* a = affine + channel;
    float z = affine_of(to_float(x[offset]) - a[0], a[channels], a[2 * channels]);
    return from_float<T>(relu ? zero_up_to_zero(z, z) : z);
  }
};

template <typename T>
struct DrawSource {
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
      float d[kPiece<T>];
      read_piece<T>(d, piece + tile_bytes);
      form_batch_norm<kPiece<T>>(g, d, channel);
    }
    write_piece<T>(piece, g);
  }

  __device__ __forceinline__ T element(int64_t offset, int channel) const {
    float g = to_float(grad[offset]);
    if (out) {
      g = zero_up_to_zero(to_float(out[offset]), g);
    }
    if (raw) {
      const float* a = affine + channel;
      float d = to_float(raw[offset]) - a[0], scale = a[channels];
      if (relu && !out) {
        g = zero_up_to_zero(affine_of(d, scale, a[2 * channels]), g);
      }
      g = scale * fmaf(-slope[channel], d, g - mean_g[channel]);
    }
    return from_float<T>(g);
  }

 private:
  // g, masked unless by the affine, becomes draw; d is raw, of which the mean is subtracted here.
  template <int COUNT>
  __device__ __forceinline__ void form_batch_norm(float (&g)[COUNT], float (&d)[COUNT], int channel) const {
    float mean[COUNT], scale[COUNT], shift[COUNT], mean_of_g[COUNT], slopes[COUNT];
    load_constants(mean, affine + channel);
    load_constants(scale, affine + channels + channel);
    load_constants(shift, affine + 2 * channels + channel);
    load_constants(mean_of_g, mean_g + channel);
    load_constants(slopes, slope + channel);
#pragma unroll
    for (int e = 0; e < COUNT; ++e) {
      float centred = d[e] - mean[e];
      if (relu && !out) {
        g[e] = zero_up_to_zero(affine_of(centred, scale[e], shift[e]), g[e]);
      }
      g[e] = scale[e] * fmaf(-slopes[e], centred, g[e] - mean_of_g[e]);
    }
  }
};

}  // namespace resnet_fused::cuda
