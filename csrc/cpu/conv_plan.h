// How a convolution is cut into tasks: pure functions of its shape, the machine's caches and the number of threads.
#pragma once

#include <stdint.h>

#include <vector>

#include "conv_shape.h"
#include "isa.h"
#include "types.h"

namespace resnet_fused::cpu {

struct Caches {  // bytes
  int64_t l2, l3;          // of a core; what can be counted on of the one that cores share
  int64_t l1 = 32 << 10;  // of a core
};
Caches machine_caches();  // caches.cpp

// What is read again and again while it is in a core's second-level cache may fill half of it. Of a large one that is more
// than pays: hyperthreads share it, and results and operands stream through it.
int64_t resident_bytes(const Caches& caches);

struct Strips {
  int64_t images, rows;              // of one strip
  int64_t image_strips, row_strips;  // how many: along the images, along the rows
  int64_t splits;                    // of a strip's column tiles over tasks
};

// Strips whose panels stay in a core's second-level cache, and enough tasks for all threads. Where there are more bytes
// of weights than of pixels, column tiles are split rather than strips, for each to read weights of its own.
Strips plan_strips(int64_t images, int64_t rows, int64_t row_bytes, int64_t row_advance, int64_t row_span,
                   int64_t column_tiles, int64_t weight_bytes, int threads, const Caches& caches);

// Of `groups` of weights those whose products are summed at a time, so that they stay in the first-level cache: of many,
// because a few come from the second level faster than sums are stored and read again.
int64_t plan_chunk(int64_t groups, int64_t group_bytes, const Caches& caches);

struct WgradPlan {
  Strips strips;  // splits: of the column tiles over workers
  int64_t parts;  // of the strips over workers, each with sums of its own
};

// `sums_bytes` are those of all the weights' gradients.
WgradPlan plan_wgrad(int64_t images, int64_t rows, int64_t row_bytes, int64_t sums_bytes, int64_t column_tiles,
                     int threads, const Caches& caches);

// Depthwise: strips for fprop and dgrad, splits of the channels' tiles over tasks. `ring_bytes` are those of one tile.
Strips plan_depthwise(int64_t images, int64_t rows, int64_t row_pixels, int64_t row_span, int64_t ring_bytes,
                      int64_t tiles, int64_t tile_bytes, int threads, const Caches& caches);

enum class Algorithm : int { kLibrary, kDirect, kWinograd, kDepthwise };
const char* algorithm_name(Algorithm algorithm);

// Which code may run, whatever would be fastest.
enum class Engine : int {
  kAuto,    // ours where it is expected to be faster than the library
  kAlways,  // ours wherever it can
  kNever,
};

struct Machine {
  Isa isa;
  bool native_bf16;  // instructions that multiply pairs of bfloat16, which the library uses and we do not
};
Machine this_machine();

// The algorithm for all three passes of a convolution.
Algorithm choose_algorithm(const ConvShape& shape, DType dtype, const Machine& machine, Engine engine, bool winograd);

struct WinogradPlan {
  int64_t blocks;       // of all images' tile rows
  bool shared;          // all workers on one block: transform its rows, then multiply its column tiles
  bool transform_once;  // the weights, before all blocks; else those of a column tile by whoever multiplies it
};
WinogradPlan plan_winograd(int64_t images, int64_t tile_rows, int64_t tile_columns, int64_t channels,
                           int64_t column_tiles, int64_t element_bytes, int threads, const Caches& caches);
WinogradPlan plan_winograd_wgrad(int64_t images, int64_t tile_rows, int64_t tile_columns, int64_t channels,
                                 int64_t filters, int64_t element_bytes, int threads, const Caches& caches);

// What a plan is made for besides the problem.
struct Resources {
  Isa isa;
  int threads;
  Caches caches;
};
Resources present_resources();

enum class Pass : int { kFprop, kDgrad, kWgrad };

// How one pass is run by an algorithm: what its tasks are. Within a task its driver asks for more, as plan_chunk and
// resident_bytes.
struct ConvPlan {
  Algorithm algorithm;         // not the library's
  std::vector<Strips> strips;  // fprop and dgrad: direct, of each grid (conv_grid.h); depthwise, of all
  WgradPlan wgrad;             // direct; depthwise: parts of the rows and splits of the channels
  WinogradPlan winograd;
};
ConvPlan plan_conv(Pass pass, const ConvShape& shape, DType dtype, Algorithm algorithm, const Resources& resources);

}  // namespace resnet_fused::cpu
