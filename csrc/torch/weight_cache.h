// What inference makes of weights, kept as long as they stay as they are.
#pragma once

#include <ATen/core/Tensor.h>

#include <unordered_map>

#include "../cpu/conv.h"

namespace resnet_fused {

// Samples of weights' values, by which a change is noticed.
class WeightSamples {
 public:
  // Those of many weights at once, by all threads, since their values come from memory.
  void take(at::TensorList weights);
  // What was taken of it, or else a sample of what is there now.
  uint64_t of(const at::Tensor& weight) const;

 private:
  std::unordered_map<const c10::TensorImpl*, uint64_t> taken_;
};

// Memory for packed weights that outlives the call, once the same weights have come a second time: training, which
// changes them each step, keeps nothing. They are taken for the same if tensor, address, strides, version counter and a
// sample of their values agree; the version misses what is written through `.data`, hence the sample, which may miss what
// changes few of the values. What is kept of deleted weights is given up with the next run of blocks, or when something
// new is kept. Thread-safe.
class KeptWeights {
 public:
  KeptWeights(const at::Tensor& weight, const WeightSamples& samples) : weight_(weight), samples_(samples) {}
  // What could not be filled, because something threw, is filled another time.
  ~KeptWeights();
  KeptWeights(const KeptWeights&) = delete;
  KeptWeights& operator=(const KeptWeights&) = delete;
  // Nothing is kept (null) at first sight, and while another thread fills it.
  cpu::KeptMemory get(int64_t tag, int64_t bytes);
  // What get() gave, and did not call ready, is filled now.
  void filled();

 private:
  at::Tensor weight_, memory_;
  const WeightSamples& samples_;
  bool filling_ = false;
};

// Bytes kept, also of weights that were deleted since.
int64_t kept_weight_bytes();
void release_kept_weights();

}  // namespace resnet_fused
