// Sums over a block's threads, in an order that depends on nothing but the shape.
#pragma once

#include "sweep.cuh"

namespace resnet_fused::cuda {

constexpr int kWarp = 32;

// Sums over the block, of the thread's channels. `memory` holds kThreads * N elements; all threads call it. After it,
// result(i, sum) is called once for every channel of the block, i being its distance from the block's first one.
template <int N, bool kChannelsLast, typename A, typename Result>
__device__ void reduce_block(const Sweep& s, const A (&sums)[N], A* memory, Result result) {
  int thread = threadIdx.x;
  if constexpr (kChannelsLast) {
    // [quarter][thread][width]: neighbours write, and read, neighbouring banks.
    constexpr int kWidth = N < 4 ? N : 4;
    int lanes = 1 << s.lanes_log2;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      memory[((i / kWidth) * kThreads + thread) * kWidth + i % kWidth] = sums[i];
    }
    __syncthreads();
    for (int i = thread; i < lanes * N; i += kThreads) {
      int quarter = i / (lanes * kWidth), inside = i % (lanes * kWidth);
      A sum = 0;
      for (int row = 0; row < kThreads / lanes; ++row) {
        sum += memory[(quarter * kThreads + row * lanes) * kWidth + inside];
      }
      result((inside / kWidth) * N + quarter * kWidth + inside % kWidth, sum);
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
