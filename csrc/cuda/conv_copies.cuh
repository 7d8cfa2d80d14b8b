// An operand's pieces that a thread copies to shared memory, tensor by tensor, and forms there. Tiles are named by the
// distance from the beginning of shared memory.
#pragma once

#include "arch/cp_async.cuh"
#include "arch/registers.cuh"
#include "conv_prologue.cuh"
#include "conv_tile.cuh"

namespace resnet_fused::cuda {

template <typename Source, typename Layout>
struct OwnCopies {
  using T = typename Layout::Element;
  using Own = OwnPieces<Layout>;

  Source source;
  int64_t first;                       // element that offsets count from,
  const T* base[Source::kMaxTensors];  // in each tensor
  uint32_t own_shared;                 // address of this thread's first piece in a tile at 0
  uint32_t copied = 0;  // whether each piece was, or is padding, for the last few loads: Own::kCount bits each

  __device__ __forceinline__ OwnCopies(const Source& source, int64_t first)
      : source(source), first(first), own_shared(shared_address(shared_memory) + Own::offset()) {
#pragma unroll
    for (int t = 0; t < Source::kMaxTensors; ++t) {
      base[t] = source.tensor(t) + first;
      if (Source::kMaxTensors == 1) {  // of more, registers are short
        base[t] = kept(base[t]);
      }
    }
  }

  // Starts the copy of piece i, from `offset` of each of the source's tensors; or of zeros. In the pieces' order.
  template <typename Offset>
  __device__ __forceinline__ void load(int tiles, int i, Offset offset, bool there) {
#pragma unroll
    for (int t = 0; t < Source::kMaxTensors; ++t) {
      if (t < source.tensors()) {
        cp_async_16(own_shared + tiles + t * Layout::kBytes + i * Own::kOffsetStep, base[t] + offset, there);
      }
    }
    if (source.forms()) {
      copied = copied << 1 | there;
    }
  }

  __device__ __forceinline__ void skip() { copied <<= Own::kCount; }

  // A piece that was not copied.
  __device__ __forceinline__ T* piece(int tiles, int i) const {
    return reinterpret_cast<T*>(shared_memory + tiles + Own::offset() + i * Own::kOffsetStep);
  }

  // Applies the prologue to the pieces that were loaded `lag` loads ago. Padding is zero after it.
  __device__ __forceinline__ void form(int tiles, int lag, int channel) const {
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
      char* quarters = shared_memory + tiles + Own::offset() + first * Own::kElementBytes;
#pragma unroll
      for (int k = 0; k < Own::kCount; ++k) {
        if (there >> (Own::kCount - 1 - k) & 1) {
          source.form(quarters + k * Own::kOffsetStep, Layout::kBytes, constants);
        }
      }
    }
  }
};

}  // namespace resnet_fused::cuda
