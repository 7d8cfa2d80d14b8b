// The pixels' operand of fprop and dgrad, [kTileM][kTileK]: for each pixel of the tile, a chunk of the taps and
// channels that it meets. An address is that of the pixel's first tap plus what the tap cursor has come to, the same
// for all pixels; so that nothing is divided in the main loop.
#pragma once

#include "conv_copies.cuh"
#include "conv_window.cuh"

namespace resnet_fused::cuda {

// The pixels of a thread's own pieces.
template <typename Own>
struct PixelTaps {
  int pixel_offset[Own::kCount];  // from the tile's first image: of the first tap, which may be outside of the image
  uint32_t rows[Own::kCount], columns[Own::kCount];  // bit t: tap t, of one direction, meets the image

  // Pixels from first_pixel on, of [images][window.rows][window.columns]; offsets are of a channel.
  __device__ __forceinline__ PixelTaps(const Window& window, const TapSteps& steps, int images, int channel,
                                       int first_pixel) {
    int pixels = images * window.rows.value * window.columns.value;
    int first_image = pixel_at(first_pixel, window.rows, window.columns).n;
#pragma unroll
    for (int i = 0; i < Own::kCount; ++i) {
      int m = first_pixel + Own::row(i);
      Pixel pixel = pixel_at(m, window.rows, window.columns);
      int row = window.stride[0] * pixel.i + window.origin[0], column = window.stride[1] * pixel.j + window.origin[1];
      int line = (pixel.n - first_image) * window.height + row;
      pixel_offset[i] = (line * window.width + column) * window.channels + channel;
      rows[i] = m < pixels ? meeting(row, window.dilation[0], steps.taps_r, window.height) : 0;
      columns[i] = meeting(column, window.dilation[1], steps.taps_s, window.width);
    }
  }

  // Of the first image that the tile has pixels of.
  __device__ __forceinline__ static int64_t image_offset(const Window& window, int first_pixel) {
    int first_image = pixel_at(first_pixel, window.rows, window.columns).n;
    return static_cast<int64_t>(first_image) * window.height * window.width * window.channels;
  }

 private:
  // Taps, from `first` on, that are inside of [0, size).
  __device__ __forceinline__ static uint32_t meeting(int first, int dilation, int taps, int size) {
    uint32_t bits = 0;
#pragma unroll 1
    for (int tap = 0; tap < taps; ++tap) {
      bits |= (static_cast<unsigned>(first + dilation * tap) < static_cast<unsigned>(size) ? 1u : 0u) << tap;
    }
    return bits;
  }
};

template <typename T, typename TileShape, typename Source, bool VECTOR>
struct PixelGather {
  using Layout = ReductionInner<T, TileShape::kTileM, kTileK<T, TileShape>>;
  using Own = OwnPieces<Layout>;

  OwnCopies<Source, Layout> copies;
  PixelTaps<Own> pixels;
  TapSteps steps;
  TapCursor next;
  int group_channel;  // first channel of the group
  int form_channel;   // of the chunk that is formed next, within the group

  __device__ __forceinline__ PixelGather(const Source& source, const Window& window, const TapSteps& steps, int images,
                                         int group, int first_pixel)
      : copies(source, PixelTaps<Own>::image_offset(window, first_pixel)),
        pixels(window, steps, images, group * steps.channels, first_pixel),
        steps(steps),
        next(steps, Own::column() * kPiece<T>),
        group_channel(group * steps.channels),
        form_channel(next.c) {}

  __device__ __forceinline__ void load(int tiles) {
#pragma unroll
    for (int i = 0; i < Own::kCount; ++i) {
      if constexpr (VECTOR) {
        copies.load(tiles, i, pixels.pixel_offset[i] + next.offset, meets(next, i));
      } else {
        load_elements_of(copies.piece(tiles, i), i);
      }
    }
    next.advance(steps, Layout::kTileK);
  }

  __device__ __forceinline__ void skip() { copies.skip(); }

  __device__ __forceinline__ void form(int tiles, int lag) {
    if constexpr (VECTOR) {
      copies.form(tiles, lag, group_channel + form_channel);
      form_channel += Layout::kTileK;
      while (form_channel >= steps.channels) {
        form_channel -= steps.channels;
      }
    }
  }

 private:
  __device__ __forceinline__ bool meets(const TapCursor& tap, int i) const {
    return tap.inside(steps) && pixels.rows[i] >> tap.r & pixels.columns[i] >> tap.s & 1;
  }

  // A piece whose elements may be of different taps, formed at once.
  __device__ __forceinline__ void load_elements_of(T* piece, int i) const {
    TapCursor tap = next;
#pragma unroll 1
    for (int e = 0; e < kPiece<T>; ++e) {
      int64_t offset = copies.first + (pixels.pixel_offset[i] + tap.offset);
      piece[e] = meets(tap, i) ? copies.source.element(offset, group_channel + tap.c) : from_acc<T>(0.0f);
      tap.advance(steps, 1);
    }
  }
};

}  // namespace resnet_fused::cuda
