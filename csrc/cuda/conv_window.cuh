// Which pixel of a tensor a filter's tap meets: source coordinate = stride * pixel + origin + dilation * tap.
#pragma once

#include "conv.h"

namespace resnet_fused::cuda {

// Division of 0 <= n < 2^31 by d < 2^31 as a multiplication (Granlund and Montgomery 1994, figure 4.1).
struct Divisor {
  int value;
  uint32_t factor, shift;

  explicit Divisor(int d) : value(d), factor(0), shift(0) {
    while (int64_t{1} << shift < d) {
      ++shift;
    }
    factor = (((uint64_t{1} << shift) - d) << 32) / d + 1;
  }

  __device__ __forceinline__ int quotient(int n) const {
    return static_cast<int>((__umulhi(n, factor) + static_cast<uint32_t>(n)) >> shift);
  }
};

struct Window {
  int height, width, channels;  // of the tensor that is read; channels of all groups
  Divisor rows, columns;        // of each image's pixels that are computed
  int taps[2];
  int stride[2], origin[2], dilation[2];

  // Pixels that are computed one after another are read one after another: the tensor is one line of them.
  bool linear() const {
    return height == rows.value && width == columns.value && taps[0] * taps[1] == 1 && stride[0] * stride[1] == 1 &&
           origin[0] == 0 && origin[1] == 0;
  }
};

// Output pixels over the input: fprop, and wgrad's second operand.
inline Window output_window(const ConvShape& s) {
  return {s.H, s.W, s.C, Divisor(s.P), Divisor(s.Q), {s.R, s.S}, {s.stride[0], s.stride[1]},
          {-s.padding[0], -s.padding[1]}, {s.dilation[0], s.dilation[1]}};
}

// A pixel of [images][rows][columns].
struct Pixel {
  int n, i, j;
};

__device__ __forceinline__ Pixel pixel_at(int m, const Divisor& rows, const Divisor& columns) {
  int line = columns.quotient(m), n = rows.quotient(line);
  return {n, line - n * rows.value, m - line * columns.value};
}

// How an address moves with a position (r, s, c) in the reduction over taps and channels of one group. Made by the
// host, so that the main loop has it in constant memory.
struct TapSteps {
  int taps_r, taps_s, channels;  // no taps at all where one of the first is 0
  int per_c;                     // elements from a channel to the next,
  int next_s;                    // from past the last channel of a tap to the next tap's first,
  int next_r;                    // from past the last tap of a row to the next row's first
};

__host__ __device__ inline TapSteps tap_steps(const int (&taps)[2], int channels, int per_r, int per_s, int per_c) {
  return {taps[0], taps[1], channels, per_c, per_s - channels * per_c, per_r - taps[1] * per_s};
}

inline TapSteps window_steps(const Window& w, int groups) {
  return tap_steps(w.taps, w.channels / groups, w.dilation[0] * w.width * w.channels, w.dilation[1] * w.channels, 1);
}

struct TapCursor {
  int r, s, c;
  int offset;  // elements from (0, 0, 0)

  __device__ __forceinline__ TapCursor(const TapSteps& steps, int start) : r(0), s(0), c(0), offset(0) {
    advance(steps, start);
  }

  __device__ __forceinline__ void advance(const TapSteps& steps, int by) {
    c += by;
    offset += by * steps.per_c;
    while (c >= steps.channels) {
      c -= steps.channels;
      offset += steps.next_s;
      if (++s == steps.taps_s) {
        s = 0;
        ++r;
        offset += steps.next_r;
      }
    }
  }

  __device__ __forceinline__ bool inside(const TapSteps& steps) const { return r < steps.taps_r; }
};

}  // namespace resnet_fused::cuda
