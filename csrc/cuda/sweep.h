// How the blocks of a grid share out a dense tensor: pure functions of its shape, on the host.
#pragma once

#include "../common/types.h"

namespace resnet_fused::cuda {

constexpr int kThreads = 256;

// A tensor as `rows` whose elements follow each other in memory. Channels last, a row is a pixel, of all channels; else
// it is a segment of a plane, of one channel. A block takes the rows [chunk_rows * i, chunk_rows * (i + 1)) of a tile:
// `lanes * vector` channels, or one channel. Its threads are `lanes` along a row by kThreads / lanes rows.
struct Sweep {
  int64_t rows, chunk_rows, chunks, tiles;
  int64_t channels;
  int64_t length;    // elements of a row; of the last segment of a plane perhaps fewer
  int64_t segments;  // of a plane
  int64_t pixels;    // of a plane; 1 with channels last, where each element of a row is another channel's
  int lanes_log2;
  bool channels_last;

  int64_t blocks() const {
    return chunks * tiles;
  }
};

// Elements of one channel in the rows before `row`.
#if defined(__CUDACC__)
__host__ __device__
#endif
inline int64_t elements_before(const Sweep& s, int64_t row) {
  return row / s.segments * s.pixels + row % s.segments * s.length;
}

// Blocks enough to fill the largest GPUs twice (132 SMs, two blocks at a time on each), as long as each of a block's
// threads keeps at least kFewestRows rows (loads in flight; per-channel constants read once) and at most kMostRows (the
// rounding of its sums).
constexpr int64_t kEnoughBlocks = 528;
constexpr int64_t kFewestRows = 4;
constexpr int64_t kMostRows = 64;
constexpr int64_t kSegmentVectors = 4;  // a thread's share of a plane's segment

// Threads along a row of `along` accesses, as a power of two: channels of a warp at most, so that the rest of a block
// can share the constants of its channels; or the columns of a block.
inline int lanes_log2(int64_t along, bool channels_last) {
  int64_t most = channels_last ? 32 : kThreads;
  int log2 = 0;
  while ((int64_t{1} << log2) < along && (int64_t{1} << log2) < most) {
    ++log2;
  }
  return log2;
}

inline Sweep plan_sweep(const Shape& shape, int vector) {
  Sweep s{};
  s.channels = shape.channels;
  s.channels_last = shape.channels_last;
  int64_t along = ceil_div(shape.channels_last ? shape.channels : shape.pixels, vector);  // accesses along a row
  s.lanes_log2 = lanes_log2(along, shape.channels_last);
  int64_t lanes = int64_t{1} << s.lanes_log2;
  if (shape.channels_last) {
    s.rows = shape.images * shape.pixels;
    s.length = shape.channels;
    s.segments = s.pixels = 1;
    s.tiles = ceil_div(along, lanes);
  } else {
    s.length = lanes * vector * kSegmentVectors;
    s.segments = ceil_div(shape.pixels, s.length);
    s.pixels = shape.pixels;
    s.rows = shape.images * s.segments;
    s.tiles = shape.channels;
  }
  int64_t step = kThreads / lanes;
  int64_t share = ceil_div(s.rows * s.tiles, kEnoughBlocks * step);  // rows for each thread
  share = share < kFewestRows ? kFewestRows : share > kMostRows ? kMostRows : share;
  s.chunk_rows = share * step;
  s.chunks = ceil_div(s.rows, s.chunk_rows);
  return s;
}

}  // namespace resnet_fused::cuda
