// What inference makes of weights, kept as long as they stay as they are.
#pragma once

#include <ATen/core/Tensor.h>

#include "../cpu/conv.h"

namespace resnet_fused {

// Memory for packed weights that outlives the call, once the same weights have come a second time: training, which
// changes them each step, keeps nothing. They are taken for the same if tensor, address, strides, version counter and a
// sample of their values agree; the version misses what is written through `.data`, hence the sample, which may miss what
// changes few of the values. Thread-safe.
class KeptWeights {
 public:
  explicit KeptWeights(const at::Tensor& weight) : weight_(weight) {}
  // Nothing is kept (null) at first sight, and while another thread fills it.
  cpu::KeptMemory get(int64_t tag, int64_t bytes);
  // What get() gave, and did not call ready, is filled now.
  void filled();

 private:
  at::Tensor weight_, memory_;
  bool filling_ = false;
};

// Takes the samples of many weights at once, by all threads, since their values come from memory; while it lives,
// KeptWeights in this thread use them.
class SampledWeights {
 public:
  explicit SampledWeights(at::TensorList weights);
  ~SampledWeights();
  SampledWeights(const SampledWeights&) = delete;
  SampledWeights& operator=(const SampledWeights&) = delete;
};

// Bytes kept for weights that are still alive.
int64_t kept_weight_bytes();
void release_kept_weights();

}  // namespace resnet_fused
