// How a convolution is cut into tasks: pure functions of its shape, the machine's caches and the number of threads.
#pragma once

#include <stdint.h>

namespace resnet_fused::cpu {

struct Caches {
  int64_t l2, l3;  // bytes: of a core, of all of them
};
Caches machine_caches();

struct Strips {
  int64_t images, rows;              // of one strip
  int64_t image_strips, row_strips;  // how many: along the images, along the rows
  int64_t splits;                    // of a strip's column tiles over tasks
};

// Strips whose panels fill at most half a core's second-level cache, and enough tasks for all threads.
Strips plan_strips(int64_t images, int64_t rows, int64_t row_bytes, int64_t row_advance, int64_t row_span,
                   int64_t column_tiles, int threads, const Caches& caches);

struct WgradPlan {
  Strips strips;  // splits: of the column tiles over workers
  int64_t parts;  // of the strips over workers, each with sums of its own
};

// `sums_bytes` are those of all the weights' gradients.
WgradPlan plan_wgrad(int64_t images, int64_t rows, int64_t row_bytes, int64_t sums_bytes, int64_t column_tiles,
                     int threads, const Caches& caches);

}  // namespace resnet_fused::cpu
