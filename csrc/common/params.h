// Arguments of the batch norm and stem operations, one POD struct each, the same for every device. Pointers are to
// dense tensors of the struct's shape. `acc` is the accumulation type: double for float64 activations, else float;
// `affine` is acc [4, C]: mean, scale, shift, invstd, and z(x; affine) = (x - mean) * scale + shift.
#pragma once

#include "types.h"

namespace resnet_fused {

// stats: acc [2, C] = mean, sum (x - mean)^2
struct StatisticsParams {
  Shape shape;
  const void* x;
  void* stats;
};

// affine: invstd = 1 / sqrt(M2 / count + eps), scale = weight * invstd, shift = bias; all arrays in acc.
struct FinalizeParams {
  int64_t channels;
  const void* mean;
  const void* m2;
  int64_t count;
  const void* weight;  // may be null: 1
  const void* bias;    // may be null: 0
  double eps;
  void* affine;
};

// y = [relu](z(x) + (residual | z(residual; residual_affine) | nothing)); bits: y's mask, of where not (y <= 0)
struct ApplyParams {
  Shape shape;
  const void* x;
  const void* affine;
  const void* residual;         // may be null
  const void* residual_affine;  // may be null
  void* y;                      // may be x or residual
  bool relu;
  uint8_t* bits;                // may be null, and is without a residual or where not has_mask(shape); CUDA alone
};

// Where the gradient's ReLU mask is taken from: g is grad where not (out <= 0), or where not (z(x) <= 0), or where the
// bit is set that bn_apply wrote of out.
enum class Mask : int { kNone = 0, kOutput = 1, kAffine = 2, kBits = 3 };

// sums: acc [1..3, C] = sum g, sum g * xhat, sum g * xhat2 with xhat = (x - mean) * invstd, a row for each of x and x2
// that is given.
struct BackwardReduceParams {
  Shape shape;
  const void* grad;
  const void* out;      // for Mask::kOutput
  const void* x;        // may be null
  const void* affine;
  const void* x2;       // may be null
  const void* affine2;
  void* operand;        // may be null; else receives [relu] z(x; affine), relu with Mask::kAffine
  void* masked;         // may be null; else receives g, with Mask::kOutput or Mask::kBits, which has it always
  Mask mask;
  void* sums;
  const uint8_t* bits;  // for Mask::kBits, which is CUDA's alone
};

// draw = scale * (g - means[0] - xhat * means[1])
struct BackwardApplyParams {
  Shape shape;
  const void* grad;
  const void* out;
  const void* x;
  const void* affine;
  const void* means;  // acc [2, C]
  void* draw;
  Mask mask;
};

// means = sums / count, and the rows of sums as gradients of shift and scale, in the dtypes of those parameters.
struct BackwardFinalizeParams {
  int64_t channels;
  const void* sums;  // acc [2, C]
  int64_t count;
  void* means;    // acc [2, C]
  void* dweight;  // may be null; else receives the second row
  void* dbias;    // may be null; else receives the first
  DType weight_dtype, bias_dtype;
};

// running = (1 - momentum) * running + momentum * batch, with the unbiased variance M2 / (count - 1).
struct RunningStatistics {
  int64_t channels;
  const void* stats;  // acc [2, C]
  int64_t count;
  double momentum;
  void *mean, *var;
  DType mean_dtype, var_dtype;
};

// Of several batch norms at once, no two of them the same; and counters of batches, each to be incremented.
constexpr int kUpdatesAtOnce = 8;
struct UpdateRunningParams {
  int norms, counters;
  RunningStatistics norm[kUpdatesAtOnce];
  int64_t* counter[kUpdatesAtOnce];
};

// y = base + (grad where not (out <= 0)); base and out may be null, y may be base.
struct MaskAddParams {
  int64_t elements;
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

// y and the winner's position 0..8 in its window; 255 where the maximum is not > 0 (nor NaN).
struct StemPoolParams {
  StemShape shape;
  const void* x;
  const void* affine;
  void* y;
  uint8_t* index;
};

// Of the gradient g scattered to the winners: sums = acc [2, C] sum g, sum g * xhat, [1, C] without x; or
// draw = g, with x = scale * (g - means[0] - xhat * means[1]).
struct StemPoolBackwardParams {
  StemShape shape;
  const void* grad;
  const uint8_t* index;
  const void* x;       // may be null
  const void* affine;
  const void* means;
  void* sums;
  void* draw;
};

}  // namespace resnet_fused
