// Arguments of the kernels, one POD struct per operation, passed by value down to
// the chunk functions. Pointers are to dense tensors of the struct's shape. `affine` is
// [4, C] (mean, scale, shift, invstd) in the accumulation type: float for float32,
// bfloat16 and float16 activations, double for float64.
#pragma once

#include "types.h"

namespace resnet_fused::cpu {

// Per-chunk memory of the reductions: `stride` bytes each, laid out by the kernel.
struct Scratch {
  char* data;
  int64_t stride;
  int64_t slots;  // channels, rounded up so that it also holds one vector of lanes
};

struct StatisticsParams {
  Shape shape;
  const void* x;
  Scratch scratch;  // double count, mean, m2 [slots] each; then acc pivot, sum, square
};

struct ApplyParams {
  Shape shape;
  const void* x;
  const void* affine;
  const void* residual;         // may be null
  const void* residual_affine;  // may be null
  void* y;                      // may be x or residual
  bool relu;
};

// Where the gradient's ReLU mask is taken from.
enum class Mask : int { kNone = 0, kOutput = 1, kAffine = 2 };

struct BackwardReduceParams {
  Shape shape;
  const void* grad;
  const void* out;      // for Mask::kOutput
  const void* x;        // may be null: only sum g
  const void* affine;
  const void* x2;       // may be null
  const void* affine2;
  void* operand;        // may be null; else receives [relu] z(x; affine)
  Mask mask;
  Scratch scratch;      // double sum [3][slots]; then acc tile [3][slots]
};

// draw = scale * (g - mean_g - slope * (x - mean))
struct BackwardApplyParams {
  Shape shape;
  const void* grad;
  const void* out;
  const void* x;
  const void* affine;
  const void* mean_g;  // acc [C]
  const void* slope;   // acc [C]: invstd * mean(g * xhat)
  void* draw;
  Mask mask;
};

// y = base + (grad where not (out <= 0)); base and out may be null, y may be base.
struct MaskAddParams {
  const void* base;
  const void* grad;
  const void* out;
  void* y;
};

// Max pooling 3x3, stride 2, padding 1, of [images, channels, height, width].
struct StemShape {
  int64_t images, channels;
  int64_t height, width;          // of x
  int64_t out_height, out_width;  // of y
  bool channels_last;
};

struct StemPoolParams {
  StemShape shape;
  const void* x;
  const void* affine;
  void* y;
  uint8_t* index;
};

// With `draw` null: reduce, else scatter (and BN backward when x is given).
struct StemPoolBackwardParams {
  StemShape shape;
  const void* grad;
  const uint8_t* index;
  const void* x;       // may be null
  const void* affine;
  const void* mean_g;
  const void* slope;
  void* draw;
  Scratch scratch;
};

}  // namespace resnet_fused::cpu
