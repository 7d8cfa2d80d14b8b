// The weights' operand of fprop and dgrad; w is [K][R][S][C / groups].
#pragma once

#include "arch/cp_async.cuh"
#include "arch/registers.cuh"
#include "conv_tile.cuh"
#include "conv_window.cuh"

namespace resnet_fused::cuda {

// fprop: [kTileN][kTileK], a row for each filter, whose taps and channels lie in memory in the order of the reduction.
template <typename T, typename TileShape, bool VECTOR>
struct FilterRows {
  using Layout = ReductionInner<T, TileShape::kTileN, kTileK<T, TileShape>>;
  using Own = OwnPieces<Layout>;

  const T* filters;  // of the tile
  int count;         // of the tile that there are
  int length;        // of a filter
  int next;          // element of the filter
  uint32_t own_shared;

  __device__ __forceinline__ FilterRows(const T* filters, int count, int length)
      : filters(kept(filters)),
        count(count),
        length(length),
        next(Own::column() * kPiece<T>),
        own_shared(shared_address(shared_memory) + Own::offset()) {}

  __device__ __forceinline__ void load(int tiles) {
#pragma unroll
    for (int i = 0; i < Own::kCount; ++i) {
      bool row_there = Own::row(i) < count;
      const T* from = filters + (Own::row(i) * length + next);
      if constexpr (VECTOR) {
        cp_async_16(own_shared + tiles + i * Own::kOffsetStep, from, row_there && next < length);
      } else {
        float v[kPiece<T>];
        load_elements(v, from, row_there ? length - next : 0, false);
        write_piece<T>(shared_memory + tiles + Own::offset() + i * Own::kOffsetStep, v);
      }
    }
    next += Layout::kTileK;
  }

  __device__ __forceinline__ void skip() {}
  __device__ __forceinline__ void form(int, int) {}
};

// dgrad: [kTileK][kTileN], a row for each tap and filter, of neighbouring input channels. `steps` goes over the taps
// that reach the pixels of the tile, its channels being filters.
template <typename T, typename TileShape, bool VECTOR>
struct FilterTaps {
  using Layout = ReductionOuter<T, TileShape::kTileN, kTileK<T, TileShape>>;
  using Own = OwnPieces<Layout>;

  const T* filters;  // at the first tap and the tile's first channel
  int count;  // channels of the tile that there are
  TapSteps steps;
  TapCursor next;  // this thread's rows of one chunk after the other are kRowStep apart
  uint32_t own_shared;

  __device__ __forceinline__ FilterTaps(const T* filters, int count, const TapSteps& steps)
      : filters(filters),
        count(count),
        steps(steps),
        next(steps, Own::row(0)),
        own_shared(shared_address(shared_memory) + Own::offset()) {}

  __device__ __forceinline__ void load(int tiles) {
    int channel = Own::column() * kPiece<T>;
#pragma unroll
    for (int i = 0; i < Own::kCount; ++i) {
      const T* from = filters + (next.offset + channel);
      if constexpr (VECTOR) {
        cp_async_16(own_shared + tiles + i * Own::kOffsetStep, from, next.inside(steps) && channel < count);
      } else {
        float v[kPiece<T>];
        load_elements(v, from, next.inside(steps) ? count - channel : 0, false);
        write_piece<T>(shared_memory + tiles + Own::offset() + i * Own::kOffsetStep, v);
      }
      next.advance(steps, Own::kRowStep);
    }
  }

  __device__ __forceinline__ void skip() {}
  __device__ __forceinline__ void form(int, int) {}
};

}  // namespace resnet_fused::cuda
