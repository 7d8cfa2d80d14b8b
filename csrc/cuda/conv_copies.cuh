// An operand's pieces that a thread copies to shared memory, tensor by tensor, and forms there.
#pragma once

#include "arch/cp_async.cuh"
#include "conv_prologue.cuh"
#include "conv_tile.cuh"

namespace resnet_fused::cuda {

template <typename Source, typename Layout>
struct OwnCopies {
  using Own = OwnPieces<Layout>;

  Source source;
  uint32_t copied = 0;  // whether each piece was, or is padding, for the last few loads: Own::kCount bits each

  __device__ __forceinline__ explicit OwnCopies(const Source& source) : source(source) {}

  // Starts the copy of piece i, from `offset` of each of the source's tensors; or of zeros. In the pieces' order.
  __device__ __forceinline__ void load(char* tiles, int i, int64_t offset, bool there) {
#pragma unroll
    for (int t = 0; t < Source::kMaxTensors; ++t) {
      if (t < source.tensors()) {
        cp_async_16(shared_address(tiles + t * Layout::kBytes + Own::offset(i)), source.tensor(t) + offset, there);
      }
    }
    copied = copied << 1 | there;
  }

  // Applies the prologue to the pieces that were loaded `lag` loads ago. Padding is zero after it.
  __device__ __forceinline__ void form(char* tiles, int lag, int channel) const {
    if (!source.forms()) {
      return;
    }
#pragma unroll 1
    for (int i = 0; i < Own::kCount; ++i) {
      if (copied >> (Own::kCount * (lag + 1) - 1 - i) & 1) {
        source.form(tiles + Own::offset(i), Layout::kBytes, channel);
      }
    }
  }
};

}  // namespace resnet_fused::cuda
