// The stem's max pooling 3x3 / 2, padding 1, of relu(z(x)) in one pass, with the winner's place in its window; and its
// backward by gathering: a pixel of x adds the gradients of the windows (two at most in each direction) that it won, so
// that each result is written once, in a fixed order.
#pragma once

#include "../common/params.h"
#include "bn_backward.cuh"

namespace resnet_fused::cuda {

constexpr int kNoWinner = 255;

// How a grid covers [images, channels, height, width]: a block has some rows of one tile of channels (channels last) or
// of planes; its threads lie along the channels and then the columns, or along the columns and then the rows.
struct StemSweep {
  Sweep sweep;  // channels last: lanes, tiles and channels; chunks of rows. Else: chunks of rows, tiles = channels.
  int64_t height, width, out_height, out_width;
};

struct PoolParams {
  StemSweep stem;  // over rows of y
  const void *x, *affine;
  void* y;
  uint8_t* index;
};

// Starting at 0 with no winner is ReLU and "no gradient" in one: only z > 0 or a NaN wins. The first of equal maxima
// wins, and the last NaN, as in PyTorch.
template <typename A>
struct Winner {
  A value = 0;
  int index = kNoWinner;

  __device__ void offer(A z, int place) {
    if (z > value || z != z) {
      value = z;
      index = place;
    }
  }
};

// Elements from pixel to pixel, and where an image's (plane's) row begins.
template <bool kChannelsLast>
struct Pixels {
  int64_t step, channels, image, channel;

  __device__ Pixels(const Sweep& s, int64_t image, int64_t channel)
      : step(kChannelsLast ? s.channels : 1), channels(s.channels), image(image), channel(channel) {}
  __device__ int64_t row(int64_t h, int64_t height, int64_t width) const {
    return kChannelsLast ? (image * height + h) * width * channels + channel
                         : ((image * channels + channel) * height + h) * width;
  }
};

// Calls body(image, row, first column, columns from one to the next) for this thread's part of the rows of a chunk.
template <bool kChannelsLast, typename Body>
__device__ void sweep_rows(const StemSweep& stem, const Place& at, int64_t height, Body body) {
  int64_t end = at.end, first_row = at.chunk * stem.sweep.chunk_rows;
  int64_t line = threadIdx.x >> stem.sweep.lanes_log2;
  if constexpr (kChannelsLast) {
    for (int64_t row = first_row; row < end && at.channel < stem.sweep.channels; ++row) {
      body(row / height, row % height, line, at.step);
    }
  } else {
    for (int64_t row = first_row + line; row < end; row += at.step) {
      body(row / height, row % height, at.lane, int64_t{1} << stem.sweep.lanes_log2);
    }
  }
}

template <typename T, int N, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, 2) stem_pool_kernel(PoolParams p) {
  using A = Acc<T>;
  const StemSweep& stem = p.stem;
  Place at(stem.sweep, N);
  Affine<A, N> affine(p.affine, stem.sweep, at);
  sweep_rows<kChannelsLast>(stem, at, stem.out_height, [&](int64_t image, int64_t row, int64_t column, int64_t step) {
    Pixels<kChannelsLast> pixels(stem.sweep, image, at.channel);
    for (int64_t q = column; q < stem.out_width; q += step) {
      Winner<A> best[N];
#pragma unroll
      for (int r = 0; r < 3; ++r) {
        int64_t h = 2 * row - 1 + r;
        if (h < 0 || h >= stem.height) {
          continue;
        }
        const T* line = static_cast<const T*>(p.x) + pixels.row(h, stem.height, stem.width);
#pragma unroll
        for (int s = 0; s < 3; ++s) {
          int64_t w = 2 * q - 1 + s;
          if (w >= 0 && w < stem.width) {
            Packed<T, N> x = load<N>(line + w * pixels.step);
#pragma unroll
            for (int i = 0; i < N; ++i) {
              best[i].offer(affine(to_acc(x[i]), i), 3 * r + s);
            }
          }
        }
      }
      int64_t offset = pixels.row(row, stem.out_height, stem.out_width) + q * pixels.step;
      A values[N];
      Packed<uint8_t, N> places;
      uint8_t bytes[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        values[i] = best[i].value;
        bytes[i] = static_cast<uint8_t>(best[i].index);
      }
      store(static_cast<T*>(p.y) + offset, values);
      memcpy(&places.word, bytes, N);
      store(p.index + offset, places);
    }
  });
}

struct PoolBackwardParams {
  StemSweep stem;  // over rows of x
  const void* grad;
  const uint8_t* index;
  const void *x, *affine, *means;
  double* partial;  // [chunks][1..2][channels]
  void* draw;
};

// Rows (or columns) of y whose window holds row h of x, and h's place in it: for even h one, for odd h two.
struct Windows {
  struct Window {
    bool there;
    int64_t at;
    int place;
  } window[2];

  __device__ Windows(int64_t h, int64_t outputs)
      : window{{h / 2 < outputs, h / 2, h % 2 == 0 ? 1 : 2}, {h % 2 == 1 && h / 2 + 1 < outputs, h / 2 + 1, 0}} {}
};

// The gradient that pixel (h, w) of x receives.
template <typename T, int N, bool kChannelsLast>
__device__ void gather(const PoolBackwardParams& p, const Pixels<kChannelsLast>& pixels, const Windows& rows, int64_t w,
                       Acc<T> (&g)[N]) {
  Windows columns(w, p.stem.out_width);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const auto &row = rows.window[i], &column = columns.window[j];
      if (!row.there || !column.there) {
        continue;
      }
      int64_t offset = pixels.row(row.at, p.stem.out_height, p.stem.out_width) + column.at * pixels.step;
      Packed<uint8_t, N> places = load<N>(p.index + offset);
      Packed<T, N> grad = load<N>(static_cast<const T*>(p.grad) + offset);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        g[k] += places[k] == 3 * row.place + column.place ? to_acc(grad[k]) : Acc<T>(0);
      }
    }
  }
}

template <typename T, int N, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, 2) stem_pool_backward_reduce_kernel(PoolBackwardParams p) {
  using A = Acc<T>;
  __shared__ A memory[kThreads * N];
  const Sweep& s = p.stem.sweep;
  Place at(s, N);
  PerChannel<A, N> mean;
  if (p.x) {
    mean = PerChannel<A, N>(static_cast<const A*>(p.affine), s, at);
  }
  A sum[N] = {}, product[N] = {};
  sweep_rows<kChannelsLast>(p.stem, at, p.stem.height, [&](int64_t image, int64_t h, int64_t column, int64_t step) {
    Pixels<kChannelsLast> pixels(s, image, at.channel);
    Windows rows(h, p.stem.out_height);
    for (int64_t w = column; w < p.stem.width; w += step) {
      A g[N] = {};
      gather<T>(p, pixels, rows, w, g);
      Packed<T, N> x;
      if (p.x) {
        x = load<N>(static_cast<const T*>(p.x) + pixels.row(h, p.stem.height, p.stem.width) + w * pixels.step);
      }
#pragma unroll
      for (int i = 0; i < N; ++i) {
        sum[i] += g[i];
        if (p.x) {
          product[i] = multiply_add(g[i], to_acc(x[i]) - mean[i], product[i]);
        }
      }
    }
  });
  int64_t first = kChannelsLast ? (at.tile << s.lanes_log2) * N : at.tile;
  double* partial = p.partial + at.chunk * (p.x ? 2 : 1) * s.channels + first;
  auto put = [&](int i, A total) {
    if (first + i < s.channels) {
      partial[i] = total;
    }
  };
  reduce_block<N, kChannelsLast>(s, sum, memory, put);
  if (p.x) {
    partial += s.channels;
    reduce_block<N, kChannelsLast>(s, product, memory, put);
  }
}

template <typename T, int N, bool kChannelsLast>
__global__ void __launch_bounds__(kThreads, 2) stem_pool_backward_apply_kernel(PoolBackwardParams p) {
  using A = Acc<T>;
  const Sweep& s = p.stem.sweep;
  Place at(s, N);
  Draw<A, N> draw;
  if (p.x) {
    draw = Draw<A, N>(p.affine, p.means, s, at);
  }
  sweep_rows<kChannelsLast>(p.stem, at, p.stem.height, [&](int64_t image, int64_t h, int64_t column, int64_t step) {
    Pixels<kChannelsLast> pixels(s, image, at.channel);
    Windows rows(h, p.stem.out_height);
    for (int64_t w = column; w < p.stem.width; w += step) {
      A g[N] = {};
      gather<T>(p, pixels, rows, w, g);
      int64_t offset = pixels.row(h, p.stem.height, p.stem.width) + w * pixels.step;
      if (p.x) {
        Packed<T, N> x = load<N>(static_cast<const T*>(p.x) + offset);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          g[i] = draw(g[i], to_acc(x[i]), i);
        }
      }
      store(static_cast<T*>(p.draw) + offset, g);
    }
  });
}

}  // namespace resnet_fused::cuda
