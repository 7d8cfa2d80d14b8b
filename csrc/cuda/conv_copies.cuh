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
    uint32_t there = copied >> Own::kCount * lag;
    // Four channels of all pieces at a time, whose constants are read once and take few registers. Where pieces have
    // two such quarters, half of the threads begin with the second: all with the first would be in half of the banks.
    constexpr int kQuarters = Own::kPieceElements / 4;
    int begin = kQuarters > 1 ? threadIdx.x / 8 % 2 : 0;
#pragma unroll 1
    for (int i = 0; i < kQuarters; ++i) {
      int first = 4 * (i ^ begin);
      typename Source::Constants constants(source, channel + first);
#pragma unroll
      for (int k = 0; k < Own::kCount; ++k) {
        if (there >> (Own::kCount - 1 - k) & 1) {
          source.form(tiles + Own::offset(k) + first * Own::kElementBytes, Layout::kBytes, constants);
        }
      }
    }
  }
};

}  // namespace resnet_fused::cuda
