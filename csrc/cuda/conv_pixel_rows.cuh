// Both operands of wgrad, [TILE_K][EXTENT]: a row for each output pixel, of neighbouring columns. A column is a channel
// of the input seen through a tap, in the order (r, s, c) of the weights; or, through a window of one tap, of draw.
#pragma once

#include "conv_copies.cuh"
#include "conv_window.cuh"

namespace resnet_fused::cuda {

// Pixels m, m + step, … below `end`, by additions alone.
struct PixelCursor {
  Pixel at;
  int m;

  __device__ __forceinline__ PixelCursor(int m, const Window& window)
      : at(pixel_at(m, window.rows, window.columns)), m(m) {}

  __device__ __forceinline__ void advance(const Pixel& step, int by, const Window& window) {
    m += by;
    at.j += step.j;
    if (at.j >= window.columns.value) {
      at.j -= window.columns.value;
      ++at.i;
    }
    at.i += step.i;
    if (at.i >= window.rows.value) {
      at.i -= window.rows.value;
      ++at.n;
    }
    at.n += step.n;
  }
};

template <typename T, int EXTENT, int TILE_K, typename Source, bool VECTOR>
struct PixelRows {
  using Layout = ReductionOuter<T, EXTENT, TILE_K>;
  using Own = OwnPieces<Layout>;

  OwnCopies<Source, Layout> copies;
  const Window& window;     // a kernel's parameter
  int group_channels, group_channel, columns;
  int end;                  // the pixel to stop before
  Pixel step;               // of one row to this thread's next
  PixelCursor next;
  int own_column;
  int tap_row, tap_column;  // what the tap of own_column adds to a pixel's coordinates
  int channel;              // of own_column, within the tensor
  bool linear;              // the window is: a pixel's address needs no more than its number

  // Pixels from `first` to `end`, columns from `first_column` on, of one group.
  __device__ __forceinline__ PixelRows(const Source& source, const Window& window, bool linear, int groups, int group,
                                       int first, int end, int first_column)
      : copies(source, 0),
        window(window),
        group_channels(window.channels / groups),
        group_channel(group * group_channels),
        columns(window.taps[0] * window.taps[1] * group_channels),
        end(end),
        step(pixel_at(Own::kRowStep, window.rows, window.columns)),
        next(first + Own::row(0), window),
        own_column(first_column + Own::column() * kPiece<T>),
        linear(linear) {
    locate(own_column);
  }

  __device__ __forceinline__ void load(int tiles) {
#pragma unroll
    for (int i = 0; i < Own::kCount; ++i) {
      if constexpr (!VECTOR) {
        load_elements_of(copies.piece(tiles, i));
      } else if (linear) {
        int64_t offset = static_cast<int64_t>(next.m) * window.channels + channel;
        copies.load(tiles, i, offset, own_column < columns && next.m < end);
        next.m += Own::kRowStep;
        continue;
      } else {
        copies.load(tiles, i, element_offset(), own_column < columns && meets());
      }
      next.advance(step, Own::kRowStep, window);
    }
  }

  __device__ __forceinline__ void skip() { copies.skip(); }

  __device__ __forceinline__ void form(int tiles, int lag) {
    if constexpr (VECTOR) {
      copies.form(tiles, lag, channel);
    }
  }

 private:
  __device__ __forceinline__ void locate(int column) {
    int tap = column / group_channels, r = tap / window.taps[1], s = tap - r * window.taps[1];
    channel = group_channel + column - tap * group_channels;
    tap_row = window.origin[0] + window.dilation[0] * r;
    tap_column = window.origin[1] + window.dilation[1] * s;
  }

  __device__ __forceinline__ int source_row() const { return window.stride[0] * next.at.i + tap_row; }
  __device__ __forceinline__ int source_column() const { return window.stride[1] * next.at.j + tap_column; }

  __device__ __forceinline__ bool meets() const {
    unsigned h = source_row(), w = source_column();
    return next.m < end && h < static_cast<unsigned>(window.height) && w < static_cast<unsigned>(window.width);
  }

  __device__ __forceinline__ int64_t element_offset() const {
    int in_image = (source_row() * window.width + source_column()) * window.channels + channel;
    return static_cast<int64_t>(next.at.n) * (window.height * window.width * window.channels) + in_image;
  }

  // A piece whose elements may be of different taps, formed at once.
  __device__ __forceinline__ void load_elements_of(T* piece) {
#pragma unroll 1
    for (int e = 0; e < kPiece<T>; ++e) {
      locate(own_column + e);
      bool there = own_column + e < columns && meets();
      piece[e] = there ? copies.source.element(element_offset(), channel) : from_acc<T>(0.0f);
    }
  }
};

}  // namespace resnet_fused::cuda
