// Convolutions with what surrounds them, as implicit matrix products: the prologue that forms an operand while it is on
// its way to the product, and the epilogue that finishes a tile of the result before it is stored.
//
// Activations are dense NHWC, weights [K][R][S][C / groups], of float16, bfloat16 or float32; sums are of float32. A
// batch norm is float [4][channels], rows mean, scale, shift and invstd, and z(x) = (x - mean) * scale + shift. ReLU
// passes what is not <= 0, so NaN. Launchers put kernels on a stream; they throw std::runtime_error where CUDA refuses.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "../common/types.h"

namespace resnet_fused::cuda {

// Input [N, H, W, C], weights [K, R, S, C / groups], output [N, P, Q, K].
struct ConvShape {
  int N, C, H, W, K, R, S, P, Q;
  int stride[2], padding[2], dilation[2];
  int groups;
};

// What the choice of tiles depends on, from cudaDeviceProp: multiProcessorCount and sharedMemPerBlockOptin; and whether
// it has wgmma, and the build machine code for that (sm_90a).
struct DeviceLimits {
  int multiprocessors;
  int shared_bytes;
  bool wgmma;
};

struct ConvProblem {
  DType dtype;
  bool allow_tf32;  // float32 operands may be rounded to the 11 bits that tensor cores take
  ConvShape shape;
  DeviceLimits device;
};

// [relu] z(x; affine), or x where affine is null.
struct ActivationTensor {
  const void* x;
  const float* affine;
  bool relu;
};

// The gradient draw of a convolution's output: with g = grad where not (out <= 0), or without out where not
// (z(raw; affine) <= 0), scale * (g - mean_g - slope * (raw - mean)). Without raw, g.
struct DrawTensor {
  const void* grad;
  const void* out;      // may be null
  const void* raw;      // may be null, and then the next three are not read
  const float* affine;
  const float* mean_g;  // [K], mean of g
  const float* slope;   // [K], invstd * mean of g * (raw - mean) * invstd
  bool relu;            // without it g = grad
};

// y = conv(input, w), then one of
//   stats given: stats [2][K] = mean and sum of squared deviations of y as stored
//   epilogue given: y = [relu](z(conv; epilogue) + (residual | z(residual; residual_affine) | nothing))
struct ConvFpropParams {
  ConvProblem problem;
  ActivationTensor input;  // padding is zero after its z and ReLU
  const void* w;
  void* y;
  float* stats;                  // may be null
  const float* epilogue;         // [4][K], may be null
  const void* residual;          // like y, may be null
  const float* residual_affine;  // [4][K], may be null
  bool relu;                     // of the epilogue
};

// dx = dgrad(draw, w) + (add where not (add_out <= 0)). With sums, [2][C]: sum g and sum g * (x - mean) * invstd, where
// g is dx as stored, and if input.relu where not (z(x) <= 0).
struct ConvDgradParams {
  ConvProblem problem;
  DrawTensor draw;
  const void* w;
  void* dx;
  const void* add;      // like dx, may be null
  const void* add_out;  // like dx, may be null
  float* sums;          // may be null, and then input is not read
  ActivationTensor input;
};

// dw = sum over the output's pixels of draw * input.
struct ConvWgradParams {
  ConvProblem problem;
  DrawTensor draw;
  ActivationTensor input;
  void* dw;
};

// Why these convolutions cannot run a problem, or null.
const char* conv_unsupported(const ConvProblem& problem);

// Bytes of memory, aligned to 16, that a launcher needs until its kernels have ended.
int64_t conv_fprop_workspace(const ConvFpropParams& params);
int64_t conv_dgrad_workspace(const ConvDgradParams& params);
int64_t conv_wgrad_workspace(const ConvWgradParams& params);

void launch_conv_fprop(const ConvFpropParams& params, void* workspace, cudaStream_t stream);
void launch_conv_dgrad(const ConvDgradParams& params, void* workspace, cudaStream_t stream);
void launch_conv_wgrad(const ConvWgradParams& params, void* workspace, cudaStream_t stream);

}  // namespace resnet_fused::cuda
