// The pixels' operand of fprop and dgrad, [kTileM][kTileK]: for each pixel of the tile, a chunk of the taps and
// channels that it meets. An address is that of the pixel's first tap plus what the tap cursor has come to, the same
// for all pixels; so that nothing is divided in the main loop.
#pragma once

#include "conv_copies.cuh"
#include "conv_window.cuh"

namespace resnet_fused::cuda {

template <typename T, typename TileShape, typename Source, bool VECTOR>
struct PixelGather {
  using Layout = ReductionInner<T, TileShape::kTileM>;
  using Own = OwnPieces<Layout>;

  OwnCopies<Source, Layout> copies;
  Window window;
  TapSteps steps;
  TapCursor next;
  int group_channel;              // first channel of the group
  int form_channel;               // of the chunk that is formed next, within the group
  int64_t image_offset;           // of the tile's first image
  int pixel_offset[Own::kCount];  // from there, of the first tap's first channel, which may be outside of the image
  int row[Own::kCount], column[Own::kCount];

  // Pixels from first_pixel on, of [images][window.rows][window.columns].
  __device__ __forceinline__ PixelGather(const Source& source, const Window& window, const TapSteps& steps, int images,
                                         int group, int first_pixel)
      : copies(source),
        window(window),
        steps(steps),
        next(steps, Own::column() * kPiece<T>),
        group_channel(group * steps.channels),
        form_channel(next.c) {
    int pixels = images * window.rows * window.columns;
    int first_image = pixel_at(first_pixel, window.rows, window.columns).n;
    image_offset = static_cast<int64_t>(first_image) * window.height * window.width * window.channels;
#pragma unroll
    for (int i = 0; i < Own::kCount; ++i) {
      int m = first_pixel + Own::row(i);
      Pixel pixel = pixel_at(m, window.rows, window.columns);
      row[i] = m < pixels ? window.stride[0] * pixel.i + window.origin[0] : kOutside;
      column[i] = window.stride[1] * pixel.j + window.origin[1];
      int line = (pixel.n - first_image) * window.height + row[i];
      pixel_offset[i] = (line * window.width + column[i]) * window.channels + group_channel;
    }
  }

  __device__ __forceinline__ void load(char* tiles) {
#pragma unroll
    for (int i = 0; i < Own::kCount; ++i) {
      if constexpr (VECTOR) {
        bool there = meets(next, i);
        copies.load(tiles, i, there ? image_offset + (pixel_offset[i] + next.offset) : 0, there);
      } else {
        load_elements_of(tiles, i);
      }
    }
    next.advance(steps, kTileK<T>);
  }

  __device__ __forceinline__ void form(char* tiles, int lag) {
    if constexpr (VECTOR) {
      copies.form(tiles, lag, group_channel + form_channel);
      form_channel += kTileK<T>;
      while (form_channel >= steps.channels) {
        form_channel -= steps.channels;
      }
    }
  }

 private:
  static constexpr int kOutside = -(1 << 30);  // as far from any image as to stay outside whatever is added

  __device__ __forceinline__ bool meets(const TapCursor& tap, int i) const {
    unsigned h = row[i] + window.dilation[0] * tap.r, w = column[i] + window.dilation[1] * tap.s;
    return tap.inside(steps) && h < static_cast<unsigned>(window.height) && w < static_cast<unsigned>(window.width);
  }

  // A piece whose elements may be of different taps, formed at once.
  __device__ __forceinline__ void load_elements_of(char* tile, int i) const {
    TapCursor tap = next;
    T* piece = reinterpret_cast<T*>(tile + Own::offset(i));
#pragma unroll 1
    for (int e = 0; e < kPiece<T>; ++e) {
      int64_t offset = image_offset + (pixel_offset[i] + tap.offset);
      piece[e] = meets(tap, i) ? copies.source.element(offset, group_channel + tap.c) : from_acc<T>(0.0f);
      tap.advance(steps, 1);
    }
  }
};

}  // namespace resnet_fused::cuda
