// Sums over a block's threads, in an order that depends on nothing but the shape.
#pragma once

#include "sweep.cuh"

namespace resnet_fused::cuda {

constexpr int kWarp = 32;

// Sums over the block, of the thread's channels. `memory` holds kThreads * N elements; all threads call it. Then
// result(i, sum) is called for every channel of the block, i being its distance from the block's first one: at most
// once in a thread, and always in the same.
template <int N, bool kChannelsLast, typename A, typename Result>
__device__ void reduce_block(const Sweep& s, const A (&sums)[N], A* memory, Result result) {
  int thread = threadIdx.x;
  if constexpr (kChannelsLast) {
    // [part][thread][width]: neighbours write, and read, neighbouring banks.
    constexpr int kWidth = kWidest<A> < N ? kWidest<A> : N;
    int lanes = 1 << s.lanes_log2;
#pragma unroll
    for (int i = 0; i < N; i += kWidth) {
      A part[kWidth];
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        part[k] = sums[i + k];
      }
      Packed<A, kWidth> packed = pack<A>(part);
      auto* words = reinterpret_cast<decltype(packed.word)*>(memory);
      words[i / kWidth * kThreads + thread] = packed.word;
    }
    __syncthreads();
    static_assert(kWarp * N <= kThreads);
    if (int i = thread; i < lanes * N) {
      int part = i / (lanes * kWidth), inside = i % (lanes * kWidth);
      A sum = 0;
      for (int row = 0; row < kThreads / lanes; ++row) {
        sum += memory[(part * kThreads + row * lanes) * kWidth + inside];
      }
      result(inside / kWidth * N + part * kWidth + inside % kWidth, sum);
    }
  } else {
    A sum = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sum += sums[i];
    }
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(0xffffffff, sum, distance);
    }
    if (thread % kWarp == 0) {
      memory[thread / kWarp] = sum;
    }
    __syncthreads();
    if (thread == 0) {
      for (int warp = 1; warp < kThreads / kWarp; ++warp) {
        sum += memory[warp];
      }
      result(0, sum);
    }
  }
  __syncthreads();  // memory may be used again
}

}  // namespace resnet_fused::cuda
