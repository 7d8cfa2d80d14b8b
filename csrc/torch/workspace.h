// Reusable memory for tensors that live within one operator.
#pragma once

#include <ATen/core/Tensor.h>

namespace resnet_fused {

// An uninitialised dense 4-D tensor like `like` in `format`, on memory that returns to a pool with the last
// reference. A fresh 50 MB tensor costs its page faults, as much as a pass over it; the pool's are faulted
// in already. Thread-safe. The pool never holds more than was in use at one time.
at::Tensor workspace_like(const at::Tensor& like, at::MemoryFormat format);

// Bytes held by the pool, in use or not.
int64_t workspace_bytes();
// Gives unused memory back to the system.
void release_workspaces();

}  // namespace resnet_fused
