// How a convolution is cut into tiles: pure functions of the problem and the device.
#pragma once

#include <algorithm>

#include "conv.h"

namespace resnet_fused::cuda {

enum class TileChoice : int { k128x128, k128x64, k64x128, k64x64 };

struct TileSize {
  int m, n;
};
inline TileSize tile_size(TileChoice tile) {
  constexpr TileSize kSizes[] = {{128, 128}, {128, 64}, {64, 128}, {64, 64}};
  return kSizes[static_cast<int>(tile)];
}

struct TilePlan {
  TileChoice tile;
  bool vector;       // operands are copied in pieces of 16 bytes
  bool long_chunks;  // of the reduction, see has_long_chunks
  int stages;        // chunks of the reduction in shared memory,
  int stage_bytes, a_bytes;  // of one of them, and of its first operand's tiles
  int shared_bytes;
  int row_tiles, column_tiles;  // of one group
  int splits;                   // of wgrad's reduction over blocks; else 1
  int split_chunks;             // of one split

  int64_t blocks(int groups) const { return int64_t{row_tiles} * column_tiles * groups * splits; }
};

constexpr int kTileThreads = 256;  // of all tiles
constexpr int kTileWarps = kTileThreads / 32;
constexpr int kRowBytes = 64, kLongRowBytes = 128;  // of a tile in shared memory: a chunk of the reduction

inline int row_bytes(const TilePlan& plan) { return plan.long_chunks ? kLongRowBytes : kRowBytes; }

inline int piece_elements(DType dtype) { return 16 / element_bytes(dtype); }

// Tiles staged as float32 by the epilogue, and its sums over columns, two for each warp.
inline int staged_bytes(TileSize tile) {
  return 4 * (tile.m * (tile.n + 8) + 2 * kTileWarps * tile.n);
}

// Four stages hide memory's latency better than three, and two blocks on a multiprocessor better than four stages. CUDA
// takes 1024 bytes for each block. The epilogue's staged tile lies where the stages were.
inline int choose_stages(int stage_bytes, int staged_bytes, int shared_bytes) {
  int three = std::max(stage_bytes * 3, staged_bytes), four = std::max(stage_bytes * 4, staged_bytes);
  int of_two_blocks = (shared_bytes - 1024) / 2;
  return four <= of_two_blocks || (three > of_two_blocks && four <= shared_bytes) ? 4 : 3;
}

// Warpgroups multiply 64 rows of 16-bit elements, copied in pieces.
inline bool multiplies_by_wgmma(const ConvProblem& problem, const TilePlan& plan) {
  return problem.device.wgmma && element_bytes(problem.dtype) == 2 && plan.vector && plan.tile != TileChoice::k64x64;
}

// Warpgroups' products are so fast that what comes with each chunk, barriers and addresses, takes longer: theirs are
// twice as long where an operand's tensors leave room for a second block, and each chunk is of one tap: of `channels`
// that are read of a pixel one after another, or of any number of pixels.
inline bool has_long_chunks(const ConvProblem& problem, const TilePlan& plan, int a, int channels) {
  bool whole = channels * element_bytes(problem.dtype) % kLongRowBytes == 0;
  return multiplies_by_wgmma(problem, plan) && a == 1 && whole;
}

// Sets what follows from the choice of a tile. The first operand is formed of `a` tensors, the second is one;
// `channels` as for has_long_chunks.
inline TilePlan plan_tile(TileChoice tile, const ConvProblem& problem, bool vector, int64_t rows, int64_t columns,
                          int a, int channels) {
  TileSize size = tile_size(tile);
  TilePlan plan{tile, vector};
  plan.long_chunks = has_long_chunks(problem, plan, a, channels);
  plan.a_bytes = size.m * a * row_bytes(plan);
  plan.stage_bytes = plan.a_bytes + size.n * row_bytes(plan);
  int staged = staged_bytes(size);
  plan.stages = choose_stages(plan.stage_bytes, staged, problem.device.shared_bytes);
  plan.shared_bytes = std::max(plan.stages * plan.stage_bytes, staged);
  plan.row_tiles = ceil_div(rows, size.m);
  plan.column_tiles = ceil_div(columns, size.n);
  plan.splits = 1;
  return plan;
}

// Scalar copies and multiply-adds of float32 have the smallest tile alone.
inline bool has_large_tiles(const ConvProblem& problem, bool vector) {
  return vector && (problem.dtype != DType::kFloat32 || problem.allow_tf32);
}

// The largest tile that leaves neither multiprocessors nor more than half of its columns idle.
inline TilePlan plan_pixels(const ConvProblem& problem, bool vector, int64_t rows, int64_t columns, int a,
                            int channels) {
  for (TileChoice tile : {TileChoice::k128x128, TileChoice::k128x64}) {
    TilePlan plan = plan_tile(tile, problem, vector, rows, columns, a, channels);
    bool busy = int64_t{plan.row_tiles} * plan.column_tiles * problem.shape.groups >= problem.device.multiprocessors;
    bool fits = columns > tile_size(tile).n / 2 && plan.shared_bytes <= problem.device.shared_bytes;
    if (has_large_tiles(problem, vector) && busy && fits) {
      return plan;
    }
  }
  return plan_tile(TileChoice::k64x64, problem, vector, rows, columns, a, channels);
}

// Whether operands are formed in a pass over memory of their own, before the convolution. Within it they are formed
// anew for every tap that reads them, and with every tile of the result's channels: that is fewer bytes, but where
// wgmma multiplies it takes longer than those, if it is done more than `most` times by `passes` convolutions.
inline bool forms_in_memory(const ConvProblem& problem, int result_channels, int passes, int most) {
  const ConvShape& s = problem.shape;
  int64_t times = passes * ceil_div(result_channels / s.groups, 128);
  return problem.device.wgmma && (s.R * s.S > 1 || (element_bytes(problem.dtype) == 2 && times > most));
}

// By what an H100 issues in the time that an element's bytes take: forming an input within a convolution 4 times costs
// as much as reading and writing it once more; forming draw, whose tensors make chunks short besides
// (has_long_chunks), costs as much at once.
inline bool forms_input_in_memory(const ConvProblem& problem) {
  return forms_in_memory(problem, problem.shape.K, 1, 4);
}
inline bool forms_draw_in_memory(const ConvProblem& problem, bool want_dx, bool want_dw) {
  return forms_in_memory(problem, problem.shape.C, want_dx + want_dw, 1);
}

inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <typename... Pointers>
bool all_aligned(Pointers... pointers) {
  return (aligned(pointers) && ...);
}

inline bool whole_pieces(int channels, const ConvProblem& problem) {
  return channels / problem.shape.groups % piece_elements(problem.dtype) == 0;
}

// Pixels of an image are less than a piece. With channels of zeros to fill one, their copies are of whole pieces too,
// which saves more than products of three times as many channels take.
inline int padded_channels(const ConvProblem& problem) {
  const ConvShape& s = problem.shape;
  int piece = piece_elements(problem.dtype);
  bool tensor_cores = problem.dtype != DType::kFloat32 || problem.allow_tf32;
  return tensor_cores && s.groups == 1 && s.C < piece && piece <= 3 * s.C ? piece : s.C;
}

inline bool vector_activation(const ActivationTensor& t, const ConvProblem& problem) {
  return whole_pieces(problem.shape.C, problem) && all_aligned(t.x, t.affine);
}

inline bool vector_draw(const DrawTensor& t, const ConvProblem& problem) {
  return whole_pieces(problem.shape.K, problem) && all_aligned(t.grad, t.out, t.raw) &&
         (!t.raw || all_aligned(t.affine, t.mean_g, t.slope));
}

inline int draw_tensors(const DrawTensor& t) { return 1 + (t.raw != nullptr) + (t.relu && t.out != nullptr); }

inline TilePlan plan_conv_fprop(const ConvFpropParams& p) {
  const ConvShape& s = p.problem.shape;
  bool vector = vector_activation(p.input, p.problem) && aligned(p.w);
  return plan_pixels(p.problem, vector, int64_t{s.N} * s.P * s.Q, s.K / s.groups, 1, s.C / s.groups);
}

// A class of pixels of dx is those that are equal modulo the stride, which the same taps of the filter reach.
inline int pixel_classes(const ConvShape& s) { return s.stride[0] * s.stride[1]; }

// Pixels of the largest class of dx, in each direction.
inline int class_extent(int size, int stride) { return ceil_div(size, stride); }

inline TilePlan plan_conv_dgrad(const ConvDgradParams& p) {
  const ConvShape& s = p.problem.shape;
  bool vector = vector_draw(p.draw, p.problem) && whole_pieces(s.C, p.problem) && aligned(p.w);
  int64_t pixels = int64_t{s.N} * class_extent(s.H, s.stride[0]) * class_extent(s.W, s.stride[1]);
  TilePlan plan =
      plan_pixels(p.problem, vector, pixels, s.C / s.groups, draw_tensors(p.draw), s.K / s.groups);
  plan.row_tiles *= pixel_classes(s);
  return plan;
}

// Up to `most`, at least one: those that leave the least to the busiest multiprocessor, and of such the most. A block
// more than there is one for each of them takes as long as another for all.
inline int64_t choose_splits(int64_t blocks, int64_t most, int multiprocessors) {
  auto of_busiest = [&](int64_t splits) { return ceil_div(blocks * splits, multiprocessors); };
  int64_t best = 1;
  for (int64_t splits = 2; splits <= most; ++splits) {
    if (of_busiest(splits) * best <= of_busiest(best) * splits) {
      best = splits;
    }
  }
  return best;
}

inline TilePlan plan_conv_wgrad(const ConvWgradParams& p) {
  const ConvShape& s = p.problem.shape;
  bool vector = vector_draw(p.draw, p.problem) && vector_activation(p.input, p.problem);
  int64_t rows = s.K / s.groups, columns = int64_t{s.R} * s.S * (s.C / s.groups);
  TileChoice tile = TileChoice::k64x64;
  if (has_large_tiles(p.problem, vector) && rows > 64) {
    tile = columns > 64 ? TileChoice::k128x128 : TileChoice::k128x64;
  } else if (TilePlan wide{TileChoice::k64x128, vector}; multiplies_by_wgmma(p.problem, wide)) {
    tile = wide.tile;
  }
  TilePlan plan = plan_tile(tile, p.problem, vector, rows, columns, draw_tensors(p.draw), 0);
  // About two blocks for each multiprocessor, but chunks enough for each to be worth the memory for its sums.
  constexpr int kMinSplitBytes = 8 * kRowBytes;
  int64_t chunks = ceil_div(int64_t{s.N} * s.P * s.Q, row_bytes(plan) / element_bytes(p.problem.dtype));
  int64_t wanted = ceil_div(2 * p.problem.device.multiprocessors, plan.blocks(s.groups));
  int64_t most = std::min(wanted, chunks * row_bytes(plan) / kMinSplitBytes);
  int64_t splits = choose_splits(plan.blocks(s.groups), most, p.problem.device.multiprocessors);
  plan.split_chunks = std::max<int64_t>(ceil_div(chunks, splits), 1);
  plan.splits = std::max<int64_t>(ceil_div(chunks, plan.split_chunks), 1);
  return plan;
}

}  // namespace resnet_fused::cuda
