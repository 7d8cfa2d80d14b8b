// A block's walk over its part of a tensor (sweep.h): N elements at a time, several loads in flight.
#pragma once

#include "element.cuh"
#include "sweep.h"

namespace resnet_fused::cuda {

// Where a thread of a block works.
struct Place {
  int64_t chunk, tile;
  int64_t lane, step;  // of the lanes along a row; rows that the block's threads cover at once
  int64_t row, end;    // of the chunk, this thread's first and the chunk's last
  int64_t channel;     // of this thread's first element

  __device__ Place(const Sweep& s, int vector) {
    chunk = blockIdx.x / s.tiles;
    tile = blockIdx.x % s.tiles;
    lane = threadIdx.x & ((1 << s.lanes_log2) - 1);
    step = kThreads >> s.lanes_log2;
    row = chunk * s.chunk_rows + (threadIdx.x >> s.lanes_log2);
    end = min((chunk + 1) * s.chunk_rows, s.rows);
    channel = s.channels_last ? ((tile << s.lanes_log2) + lane) * vector : tile;
  }
};

// Calls body.load(offset) and then body.use(loaded, offset) for every N elements of this thread's rows, Body::kLoads
// loads before the first use: the more, the more memory is on its way, and the more registers are taken.
template <int N, bool kChannelsLast, typename Body>
__device__ void sweep(const Sweep& s, const Place& at, Body& body) {
  // An int: with the plan's kMostRows and kSegmentVectors it is small, and registers are few.
  auto run = [&](int64_t offset, int64_t stride, int count) {
    int i = 0;
    for (; i + Body::kLoads <= count; i += Body::kLoads, offset += Body::kLoads * stride) {
      decltype(body.load(offset)) loaded[Body::kLoads];
#pragma unroll
      for (int k = 0; k < Body::kLoads; ++k) {
        loaded[k] = body.load(offset + k * stride);
      }
#pragma unroll
      for (int k = 0; k < Body::kLoads; ++k) {
        body.use(loaded[k], offset + k * stride);
      }
    }
    for (; i < count; ++i, offset += stride) {
      body.use(body.load(offset), offset);
    }
  };
  if constexpr (kChannelsLast) {
    if (at.channel < s.channels && at.row < at.end) {
      run(at.row * s.channels + at.channel, at.step * s.channels, (at.end - at.row + at.step - 1) / at.step);
    }
  } else {
    int64_t stride = int64_t{N} << s.lanes_log2;
    for (int64_t row = at.row; row < at.end; row += at.step) {
      int64_t first = (row % s.segments) * s.length, last = min(first + s.length, s.pixels);
      int64_t plane = (row / s.segments) * s.channels + at.tile, begin = first + at.lane * N;
      if (begin < last) {
        run(plane * s.pixels + begin, stride, (last - begin + stride - 1) / stride);
      }
    }
  }
}

// The mask's bits of the N elements at `offset`, the first lowest; others may be above them.
template <int N>
__device__ uint32_t load_bits(const uint8_t* mask, int64_t offset) {
  return __ldca(mask + offset / kMaskBits) >> (N < kMaskBits ? offset % kMaskBits : 0);
}

// Called by all lanes whose elements are those of a byte: where there is a mask a sweep takes them together.
template <int N>
__device__ void store_bits(uint8_t* mask, int64_t offset, uint32_t bits) {
  constexpr int kLanes = kMaskBits / N;
  bits <<= offset % kMaskBits;
  uint32_t lanes = ((1u << kLanes) - 1) << (threadIdx.x % 32 / kLanes * kLanes);
#pragma unroll
  for (int distance = 1; distance < kLanes; distance *= 2) {
    bits |= __shfl_xor_sync(lanes, bits, distance);
  }
  if (offset % kMaskBits == 0) {
    __stwb(mask + offset / kMaskBits, static_cast<uint8_t>(bits));
  }
}

// A thread's channels: with channels last, N in a row; else all its elements are of one.
template <int N, bool kChannelsLast>
constexpr int kChannels = kChannelsLast ? N : 1;

// Values of the thread's channels from an array [channels].
template <typename A, int kCount>
struct PerChannel {
  A value[kCount];

  PerChannel() = default;
  __device__ PerChannel(const A* array, const Sweep& s, const Place& at) {
    // Where there are vectors of elements, they and so these begin on boundaries, and none is cut short.
    constexpr int kWidth = kWidest<A> < kCount ? kWidest<A> : kCount;
#pragma unroll
    for (int i = 0; i < kCount; i += kWidth) {
      Packed<A, kWidth> part{};
      if (at.channel < s.channels) {
        part = load<kWidth>(array + at.channel + i);
      }
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        value[i + k] = part[k];
      }
    }
  }
  __device__ A operator[](int element) const {
    return value[kCount == 1 ? 0 : element];
  }
};

// Rows of an affine [4, channels], of the thread's channels.
template <typename A, int kCount>
struct Affine {
  PerChannel<A, kCount> mean, scale, shift;

  Affine() = default;
  __device__ Affine(const void* affine, const Sweep& s, const Place& at)
      : mean(static_cast<const A*>(affine), s, at),
        scale(static_cast<const A*>(affine) + s.channels, s, at),
        shift(static_cast<const A*>(affine) + 2 * s.channels, s, at) {}

  // Forward and backward have this expression in common, so that their ReLU masks agree.
  __device__ A operator()(A x, int element) const {
    return multiply_add(x - mean[element], scale[element], shift[element]);
  }
};

}  // namespace resnet_fused::cuda
