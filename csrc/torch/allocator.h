// Memory that is reused from step to step, for the large tensors that our operators make.
#pragma once

#include <ATen/core/Tensor.h>

namespace resnet_fused {

// While one lives on a thread, large CPU tensors that this thread makes (also inside the library's convolutions) come
// from a pool, and return to it with their last reference. They are ordinary tensors. The system would map and unmap
// them each time, and a fresh 50 MB tensor costs its page faults, as much as a pass over it: 60,000 faults and a tenth
// of the time of a ResNet-18 training step (batch 16). The pool's memory is faulted in already, in huge pages where
// the system grants them. Thread-safe; tensors may be freed on any thread. The pool holds at most half as much again
// as was in use at one time.
class PooledAllocations {
 public:
  PooledAllocations();
  ~PooledAllocations();
  PooledAllocations(const PooledAllocations&) = delete;
  PooledAllocations& operator=(const PooledAllocations&) = delete;

 private:
  bool outer_;
};

// Bytes held by the pool, in use or not.
int64_t pool_bytes();
// Gives unused memory back to the system.
void release_pool();

}  // namespace resnet_fused
