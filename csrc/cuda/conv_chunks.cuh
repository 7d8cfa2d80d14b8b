// The operands of tiles with LongChunks, of warpgroups. A chunk along taps and channels is of one tap, its next 64
// channels: has_long_chunks sees to it. So all threads are at the same tap; which pixels it meets is found out once for
// each tap, and a thread's addresses move by one sum for each chunk.
#pragma once

#include "arch/cp_async.cuh"
#include "conv_filters.cuh"
#include "conv_gather.cuh"
#include "conv_pixel_rows.cuh"

namespace resnet_fused::cuda {

// A thread's own pieces of a chunk of a source of one tensor.
template <typename Source, typename Layout>
struct ChunkCopies {
  using T = typename Layout::Element;
  using Own = OwnPieces<Layout>;
  static_assert(Source::kMaxTensors == 1, "long chunks have room for one tensor");

  Source source;
  const T* from;  // what the offsets in the next chunk count from
  uint32_t own_shared;
  uint32_t copied = 0;  // whether each piece was, or is padding, for the last few loads: Own::kCount bits each

  __device__ __forceinline__ ChunkCopies(const Source& source, int64_t first)
      : source(source),
        from(kept(source.tensor(0) + first)),
        own_shared(shared_address(shared_memory) + Own::offset()) {}

  __device__ __forceinline__ void load(int tile, int i, int offset, bool there) {
    cp_async_16(own_shared + tile + i * Own::kOffsetStep, from + offset, there);
  }

  // Behind the loads of a chunk: bit i says whether piece i was there.
  __device__ __forceinline__ void loaded(uint32_t there) { copied = copied << Own::kCount | there; }

  __device__ __forceinline__ void skip() { copied <<= Own::kCount; }

  // As OwnCopies does. All pieces are formed, so that they need not wait for each other; padding remains zero.
  __device__ __forceinline__ void form(int tile, int lag, int channel) const {
    if (!source.forms()) {
      return;
    }
    uint32_t there = copied >> Own::kCount * lag;
    int begin = threadIdx.x / 8 % 2;
#pragma unroll 1
    for (int i = 0; i < 2; ++i) {
      int first = 4 * (i ^ begin);
      typename Source::Constants constants(source, channel + first);
      char* quarters = shared_memory + tile + Own::offset() + first * sizeof(T);
#pragma unroll
      for (int k = 0; k < Own::kCount; ++k) {
        source.form_where(there >> k & 1, quarters + k * Own::kOffsetStep, constants);
      }
    }
  }
};

// Where the chunks are in the reduction over taps and channels. The same in all threads.
struct ChunkCursor {
  int r = 0, s = 0, c = 0;

  // To the next chunk; returns by how many elements that is further.
  template <int CHUNK>
  __device__ __forceinline__ int advance(const TapSteps& steps) {
    int by = CHUNK * steps.per_c;
    c += CHUNK;
    if (c == steps.channels) {
      c = 0;
      by += steps.next_s;
      if (++s == steps.taps_s) {
        s = 0;
        ++r;
        by += steps.next_r;
      }
    }
    return by;
  }
};

// The pixels' operand of fprop and dgrad, as PixelGather.
template <typename T, typename TileShape, typename Source>
struct ChunkGather {
  using Layout = ReductionInner<T, TileShape::kTileM, kTileK<T, TileShape>>;
  using Own = OwnPieces<Layout>;

  ChunkCopies<Source, Layout> copies;
  PixelTaps<Own> pixels;
  TapSteps steps;
  ChunkCursor next;
  uint32_t there = 0;  // bit i: the tap meets piece i's pixel
  int first_channel, last_channel;  // of this thread's pieces, among the chunks of a tap
  int form_channel;                 // of the chunk that is formed next

  __device__ __forceinline__ ChunkGather(const Source& source, const Window& window, const TapSteps& steps, int images,
                                         int group, int first_pixel)
      : copies(source, PixelTaps<Own>::image_offset(window, first_pixel)),
        pixels(window, steps, images, group * steps.channels + Own::column() * kPiece<T>, first_pixel),
        steps(steps),
        first_channel(group * steps.channels + Own::column() * kPiece<T>),
        last_channel(first_channel + steps.channels - Layout::kTileK),
        form_channel(first_channel) {}

  __device__ __forceinline__ void load(int tile) {
    if (next.c == 0) {
      there = 0;
#pragma unroll
      for (int i = 0; i < Own::kCount; ++i) {
        there |= (pixels.rows[i] >> next.r & pixels.columns[i] >> next.s & 1) << i;
      }
    }
#pragma unroll
    for (int i = 0; i < Own::kCount; ++i) {
      copies.load(tile, i, pixels.pixel_offset[i], there >> i & 1);
    }
    copies.loaded(there);
    copies.from += next.template advance<Layout::kTileK>(steps);
  }

  __device__ __forceinline__ void skip() { copies.skip(); }

  __device__ __forceinline__ void form(int tile, int lag) {
    copies.form(tile, lag, form_channel);
    form_channel = form_channel == last_channel ? first_channel : form_channel + Layout::kTileK;
  }
};

// The weights' operand of fprop, as FilterRows.
template <typename T, typename TileShape>
struct ChunkFilterRows {
  using Layout = ReductionInner<T, TileShape::kTileN, kTileK<T, TileShape>>;
  using Own = OwnPieces<Layout>;

  const T* from;  // of this thread's first piece in the next chunk
  int count;      // of the tile's filters from this thread's first row on
  int length;     // of a filter
  uint32_t own_shared;

  __device__ __forceinline__ ChunkFilterRows(const T* filters, int count, int length)
      : from(kept(filters + (Own::row(0) * length + Own::column() * kPiece<T>))),
        count(count - Own::row(0)),
        length(length),
        own_shared(shared_address(shared_memory) + Own::offset()) {}

  __device__ __forceinline__ void load(int tile) {
#pragma unroll
    for (int i = 0; i < Own::kCount; ++i) {
      cp_async_16(own_shared + tile + i * Own::kOffsetStep, from + int64_t{length} * (i * Own::kRowStep),
                  i * Own::kRowStep < count);
    }
    from += Layout::kTileK;
  }

  __device__ __forceinline__ void skip() {}
  __device__ __forceinline__ void form(int, int) {}
};

// The weights' operand of dgrad, as FilterTaps.
template <typename T, typename TileShape>
struct ChunkFilterTaps {
  using Layout = ReductionOuter<T, TileShape::kTileN, kTileK<T, TileShape>>;
  using Own = OwnPieces<Layout>;

  const T* from;  // of this thread's first piece in the next chunk
  bool there;     // this thread's channels are
  TapSteps steps;
  ChunkCursor next;
  uint32_t own_shared;

  __device__ __forceinline__ ChunkFilterTaps(const T* filters, int count, const TapSteps& steps)
      : from(kept(filters + (Own::row(0) * steps.per_c + Own::column() * kPiece<T>))),
        there(Own::column() * kPiece<T> < count),
        steps(steps),
        own_shared(shared_address(shared_memory) + Own::offset()) {}

  __device__ __forceinline__ void load(int tile) {
#pragma unroll
    for (int i = 0; i < Own::kCount; ++i) {
      cp_async_16(own_shared + tile + i * Own::kOffsetStep, from + int64_t{steps.per_c} * (i * Own::kRowStep), there);
    }
    from += next.template advance<Layout::kTileK>(steps);
  }

  __device__ __forceinline__ void skip() {}
  __device__ __forceinline__ void form(int, int) {}
};

// Both operands of wgrad, as PixelRows.
template <typename T, int EXTENT, int TILE_K, typename Source>
struct ChunkRows {
  using Layout = ReductionOuter<T, EXTENT, TILE_K>;
  using Own = OwnPieces<Layout>;

  ChunkCopies<Source, Layout> copies;  // from the next pixel's element on
  const Window& window;                // a kernel's parameter
  bool linear;                         // the window is: pixels that follow each other are neighbours in memory
  int left;                            // pixels from the next on; none where there is no such column
  int channel;                         // of this thread's column, within the tensor
  // Otherwise, the pixel of the source that the column's tap meets, and where it would be behind the last output pixel.
  int row, column, end_row, end_column;
  Pixel step;  // of one output pixel to this thread's next

  // Pixels from `first` to `end`, columns from `first_column` on, of one group.
  __device__ __forceinline__ ChunkRows(const Source& source, const Window& window, bool linear, int groups, int group,
                                       int first, int end, int first_column)
      : copies(source, 0),
        window(window),
        linear(linear),
        step(pixel_at(Own::kRowStep, window.rows, window.columns)) {
    int group_channels = window.channels / groups, own_column = first_column + Own::column() * kPiece<T>;
    int tap = own_column / group_channels, r = tap / window.taps[1], s = tap - r * window.taps[1];
    int m = first + Own::row(0);
    left = r < window.taps[0] ? end - m : 0;
    channel = group * group_channels + own_column - tap * group_channels;
    if (linear) {
      copies.from += static_cast<int64_t>(m) * window.channels + channel;
      return;
    }
    Pixel at = pixel_at(m, window.rows, window.columns);
    int tap_row = window.origin[0] + window.dilation[0] * r, tap_column = window.origin[1] + window.dilation[1] * s;
    row = window.stride[0] * at.i + tap_row;
    column = window.stride[1] * at.j + tap_column;
    end_row = window.stride[0] * window.rows.value + tap_row;
    end_column = window.stride[1] * window.columns.value + tap_column;
    copies.from += static_cast<int64_t>(at.n) * (window.height * window.width * window.channels) +
                   ((row * window.width + column) * window.channels + channel);
  }

  __device__ __forceinline__ void load(int tile) {
    uint32_t there = 0;
#pragma unroll
    for (int i = 0; i < Own::kCount; ++i) {
      bool meets = i * Own::kRowStep < left;
      if (linear) {
        copies.load(tile, i, i * Own::kRowStep * window.channels, meets);
      } else {
        meets = meets && static_cast<unsigned>(row) < static_cast<unsigned>(window.height) &&
                static_cast<unsigned>(column) < static_cast<unsigned>(window.width);
        copies.load(tile, i, 0, meets);
        advance();
      }
      there |= meets << i;
    }
    left -= TILE_K;
    if (linear) {
      copies.from += TILE_K * window.channels;
    }
    copies.loaded(there);
  }

  __device__ __forceinline__ void skip() { copies.skip(); }

  __device__ __forceinline__ void form(int tile, int lag) { copies.form(tile, lag, channel); }

 private:
  // By sums alone. The pixels of a tile are within 2^31 elements.
  __device__ __forceinline__ void advance() {
    int by_row = window.width * window.channels, by_image = window.height * by_row;
    int by = step.n * by_image + window.stride[0] * step.i * by_row + window.stride[1] * step.j * window.channels;
    column += window.stride[1] * step.j;
    row += window.stride[0] * step.i;
    if (column >= end_column) {
      int columns = window.stride[1] * window.columns.value;
      column -= columns;
      row += window.stride[0];
      by += window.stride[0] * by_row - columns * window.channels;
    }
    if (row >= end_row) {
      int rows = window.stride[0] * window.rows.value;
      row -= rows;
      by += by_image - rows * by_row;
    }
    copies.from += by;
  }
};

// What brings a tile's operands.
template <typename TileShape>
constexpr bool kHasLongChunks = TileShape::kRowBytes == kLongRowBytes;
template <typename T, typename TileShape, typename Source, bool VECTOR>
using PixelsOfTile = std::conditional_t<kHasLongChunks<TileShape>, ChunkGather<T, TileShape, Source>,
                                        PixelGather<T, TileShape, Source, VECTOR>>;
template <typename T, typename TileShape, bool VECTOR>
using FilterRowsOfTile =
    std::conditional_t<kHasLongChunks<TileShape>, ChunkFilterRows<T, TileShape>, FilterRows<T, TileShape, VECTOR>>;
template <typename T, typename TileShape, bool VECTOR>
using FilterTapsOfTile =
    std::conditional_t<kHasLongChunks<TileShape>, ChunkFilterTaps<T, TileShape>, FilterTaps<T, TileShape, VECTOR>>;
template <typename T, typename TileShape, int EXTENT, typename Source, bool VECTOR>
using PixelRowsOfTile =
    std::conditional_t<kHasLongChunks<TileShape>, ChunkRows<T, EXTENT, kTileK<T, TileShape>, Source>,
                       PixelRows<T, EXTENT, kTileK<T, TileShape>, Source, VECTOR>>;

}  // namespace resnet_fused::cuda
