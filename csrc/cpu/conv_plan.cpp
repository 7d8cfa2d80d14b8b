#include "conv_plan.h"

#include "conv_grid.h"
#include "conv_params.h"
#include "launch.h"
#include "rounding.h"

#include <algorithm>
#include <vector>

namespace resnet_fused::cpu {

// Of strips of so many rows, taken one after the other by whichever thread is free: the rows of the thread that has most.
static int64_t most_rows(int64_t rows, int64_t strip_rows, int threads) {
  std::vector<int64_t> of_thread(threads);
  for (int64_t first = 0; first < rows; first += strip_rows) {
    *std::min_element(of_thread.begin(), of_thread.end()) += std::min(strip_rows, rows - first);
  }
  return *std::max_element(of_thread.begin(), of_thread.end());
}

int64_t resident_bytes(const Caches& caches) {
  constexpr int64_t kMost = 512 << 10;
  return std::min(caches.l2 / 2, kMost);
}

static Strips cut_strips(int64_t images, int64_t rows, int64_t row_bytes, int64_t row_advance, int64_t row_span,
                         int64_t column_tiles, int64_t weight_bytes, int threads, int64_t panel_bytes) {
  constexpr int64_t kTasksPerThread = 4;  // of which the last to finish is waited for
  constexpr int64_t kSplitsPerThread = 2;  // fewer, because each packs its strip again
  int64_t budget = panel_bytes / std::max<int64_t>(row_bytes, 1);  // rows of panels
  int64_t image_rows = (rows - 1) * row_advance + row_span;
  int64_t strip_images = std::clamp<int64_t>(budget / image_rows, 1, images);
  int64_t fitting_rows = std::clamp<int64_t>((budget - row_span) / row_advance + 1, 1, rows), strip_rows = fitting_rows;
  // Fewer images, then fewer rows, while threads would be idle; narrow strips pack their borders often.
  bool by_columns = threads > 1 && weight_bytes > images * rows * row_advance * row_bytes;
  int64_t wanted = by_columns ? 1 : threads * kTasksPerThread;
  if (ceil_div(images, strip_images) * ceil_div(rows, strip_rows) < wanted) {
    strip_images = std::max<int64_t>(images / wanted, 1);
  }
  if (threads > 1 && ceil_div(images, strip_images) * ceil_div(rows, strip_rows) < wanted) {
    int64_t least = std::min<int64_t>(rows, 4 * row_span);
    strip_rows = std::min(strip_rows, std::max(least, ceil_div(rows, ceil_div(wanted, ceil_div(images, strip_images)))));
  }
  strip_rows = ceil_div(rows, ceil_div(rows, strip_rows));
  if (!by_columns && images == 1 && strip_rows < rows) {  // about as large, and as many rows for each thread
    int64_t least = ceil_div(strip_rows, 2);
    for (int64_t r = std::min(2 * strip_rows, fitting_rows), best = 0; r >= least; --r) {
      int64_t most = most_rows(rows, r, threads);
      if (best == 0 || most < best) {
        best = most;
        strip_rows = r;
      }
    }
  }
  Strips s{strip_images, strip_rows, ceil_div(images, strip_images), ceil_div(rows, strip_rows), 1};
  int64_t strips = s.image_strips * s.row_strips;
  if (by_columns) {
    s.splits = std::min(round_up(ceil_div(threads * kSplitsPerThread, strips), threads), column_tiles);
  } else if (strips < threads) {
    s.splits = std::min<int64_t>(threads, column_tiles);
  }
  return s;
}

Strips plan_strips(int64_t images, int64_t rows, int64_t row_bytes, int64_t row_advance, int64_t row_span,
                   int64_t column_tiles, int64_t weight_bytes, int threads, const Caches& caches) {
  return cut_strips(images, rows, row_bytes, row_advance, row_span, column_tiles, weight_bytes, threads,
                    resident_bytes(caches));
}

int64_t plan_chunk(int64_t groups, int64_t group_bytes, const Caches& caches) {
  if (groups * group_bytes <= 4 * caches.l1) {
    return std::max<int64_t>(groups, 1);
  }
  int64_t most = std::max<int64_t>(caches.l1 / 2 / group_bytes, 1), chunks = ceil_div(groups, most);
  return chunks > 0 ? ceil_div(groups, chunks) : 1;
}

WgradPlan plan_wgrad(int64_t images, int64_t rows, int64_t row_bytes, int64_t sums_bytes, int64_t column_tiles,
                     int threads, const Caches& caches) {
  // All sums are read and written once for each strip, so that strips are the longer the more of them there are; but where a
  // large second level holds them, they cost less than panels that it does not.
  constexpr int64_t kLarge = 1 << 20;
  int64_t panel_bytes = caches.l2 / 4;
  if (caches.l2 >= kLarge && sums_bytes <= caches.l2 / 3) {
    panel_bytes = caches.l2 * 3 / 16;
  } else if (sums_bytes > 2 * caches.l2) {
    panel_bytes = caches.l3 / 8;
  } else if (sums_bytes > caches.l2 / 16) {
    panel_bytes = std::max(caches.l2 / 2, caches.l3 / 32);
  }
  WgradPlan plan{cut_strips(images, rows, row_bytes, 1, 1, column_tiles, 0, 1, panel_bytes), 1};
  Strips& s = plan.strips;
  // Sums that a core's cache does not hold are better divided among the workers than had by each.
  if (sums_bytes > caches.l2 / 2 || s.image_strips * s.row_strips < threads) {
    s.splits = std::min<int64_t>(threads, column_tiles);
  }
  plan.parts = std::min<int64_t>(threads / s.splits, s.image_strips * s.row_strips);
  return plan;
}

// Splits of the channels for half a core's second-level cache to hold their rings, and for `wanted` tasks as long as a
// split has several cache lines of each pixel: rows that are shared out instead are packed twice at the borders.
static int64_t depthwise_splits(int64_t ring_bytes, int64_t tiles, int64_t tile_bytes, int64_t wanted,
                                const Caches& caches) {
  constexpr int64_t kLeastBytes = 256;
  int64_t fitting = ceil_div(tiles * ring_bytes, caches.l2 / 2);
  int64_t most = std::max<int64_t>(tiles * tile_bytes / kLeastBytes, 1);
  return std::min(std::max(fitting, std::min(wanted, most)), tiles);
}

static int64_t depthwise_tasks(int threads) {
  return threads > 1 ? 4 * threads : 1;
}
// Of a task, for it to pack few rows that another packs too.
static int64_t depthwise_least_rows(int64_t row_span) {
  return 4 * row_span;
}

Strips plan_depthwise(int64_t images, int64_t rows, int64_t row_pixels, int64_t row_span, int64_t ring_bytes,
                      int64_t tiles, int64_t tile_bytes, int threads, const Caches& caches) {
  constexpr int64_t kPixels = 4096;  // of a strip at most: its statistics are summed in the accumulation type
  int64_t wanted = depthwise_tasks(threads), least = std::min(depthwise_least_rows(row_span), rows);
  int64_t strip_images = std::clamp<int64_t>(std::min(kPixels / (rows * row_pixels), images / wanted), 1, images);
  int64_t image_strips = ceil_div(images, strip_images);
  int64_t splits = depthwise_splits(ring_bytes, tiles, tile_bytes, ceil_div(wanted, image_strips), caches);
  int64_t row_strips = std::clamp<int64_t>(ceil_div(wanted, image_strips * splits), 1, rows / least);
  row_strips = std::max(row_strips, ceil_div(rows, std::max<int64_t>(kPixels / row_pixels, 1)));
  int64_t strip_rows = ceil_div(rows, row_strips);
  row_strips = ceil_div(rows, strip_rows);
  if (image_strips * row_strips * splits < threads) {
    splits = std::min<int64_t>(threads, tiles);
  }
  return {strip_images, strip_rows, image_strips, row_strips, splits};
}

const char* algorithm_name(Algorithm algorithm) {
  constexpr const char* kNames[] = {"library", "direct", "winograd", "depthwise"};
  return kNames[static_cast<int>(algorithm)];
}

Machine this_machine() {
#if defined(__x86_64__)
  return {active_isa(), __builtin_cpu_supports("avx512bf16") != 0};
#else
  return {active_isa(), false};
#endif
}

// 3x3 filters of stride 1 whose tiles are full enough to save multiplications (a 4x4 tile takes 36 for 144), and enough
// of them for each transformed weight to be used several times, and channels enough to pay for the transforms.
static bool winograd_pays(const ConvShape& c) {
  bool fits = c.R == 3 && c.S == 3 && c.stride[0] == 1 && c.stride[1] == 1 && c.dilation[0] == 1 &&
              c.dilation[1] == 1 && c.groups == 1;
  int64_t tiles = c.N * ceil_div(c.P, 4) * ceil_div(c.Q, 4);
  return fits && c.C >= kBlock && c.K >= kBlock && tiles >= 16 && 2 * tiles * 36 <= c.N * c.P * c.Q * 9;
}

// One channel to a group, and no two filters for one.
static bool is_depthwise(const ConvShape& c) {
  return c.groups > 1 && c.groups == c.C && c.groups == c.K;
}

Algorithm choose_algorithm(const ConvShape& c, DType dtype, const Machine& machine, Engine engine, bool winograd) {
  Algorithm ours = is_depthwise(c)                 ? Algorithm::kDepthwise
                   : winograd && winograd_pays(c) ? Algorithm::kWinograd
                                                  : Algorithm::kDirect;
  if (engine == Engine::kAlways) {
    return ours;
  }
  // Groups of few channels leave most of a vector empty. Depthwise, vectors are of channels, and multiplying bounds no
  // type; but short rows of few taps do not pay for what is done once a row. Without vector instructions of known width
  // nothing was measured.
  bool slow = c.groups > 1 && (c.C / c.groups < 2 * kBlock || c.K / c.groups < 2 * kBlock);
  slow = slow || (dtype == DType::kBFloat16 && machine.native_bf16 && ours != Algorithm::kWinograd);
  if (ours == Algorithm::kDepthwise) {
    slow = c.Q < 8 && c.R * c.S < 25;
  }
  slow = slow || machine.isa == Isa::kPortable;
  return slow || engine == Engine::kNever ? Algorithm::kLibrary : ours;
}

// Blocks of so many bytes at most, as many for each thread.
static int64_t cut_rows(int64_t rows, int64_t row_bytes, int64_t bytes, int64_t threads) {
  int64_t blocks = ceil_div(rows, std::clamp<int64_t>(bytes / row_bytes, 1, rows));
  return std::min(ceil_div(blocks, threads) * threads, rows);
}

// Whether some threads would wait for others by more than a fifth of the time, where rows (or column tiles) are so many
// blocks, the larger ones first.
static bool unbalanced(int64_t rows, int64_t blocks, int64_t threads) {
  int64_t longest = 0;
  for (int64_t first = 0; first < blocks; first += threads) {
    longest += rows / blocks + (first < rows % blocks ? 1 : 0);
  }
  return 5 * longest * threads > 6 * rows;
}

WinogradPlan plan_winograd(int64_t images, int64_t tile_rows, int64_t tile_columns, int64_t channels,
                           int64_t column_tiles, int64_t element_bytes, int threads, const Caches& caches) {
  // Each block of a worker's own reads all the weights; one block that all share reads them once, if there are column tiles
  // for all threads to multiply. Then own blocks only have to be large enough for the kernel, and leave room for weights.
  constexpr int64_t kMost = 320 << 10;
  int64_t row_bytes = 36 * channels * tile_columns * element_bytes, rows = images * tile_rows;
  int64_t block_bytes = caches.l2 * 5 / 8;
  if (!unbalanced(column_tiles, column_tiles, threads)) {
    block_bytes = std::min(block_bytes, kMost);
  }
  WinogradPlan plan{};
  plan.blocks = cut_rows(rows, row_bytes, block_bytes, threads);
  plan.shared = rows / plan.blocks * tile_columns < 14 || unbalanced(rows, plan.blocks, threads);
  if (plan.shared) {
    plan.blocks = cut_rows(rows, row_bytes, caches.l3 / 3, 1);
  }
  plan.transform_once = !plan.shared || plan.blocks > 1;
  return plan;
}

WinogradPlan plan_winograd_wgrad(int64_t images, int64_t tile_rows, int64_t tile_columns, int64_t channels,
                                 int64_t filters, int64_t element_bytes, int threads, const Caches& caches) {
  int64_t row_bytes = 36 * (channels + filters) * tile_columns * element_bytes, rows = images * tile_rows;
  WinogradPlan plan{};
  plan.blocks = cut_rows(rows, row_bytes, caches.l2, threads);
  plan.shared = 36 * channels * filters * element_bytes > 2 * caches.l2 || unbalanced(rows, plan.blocks, threads);
  if (plan.shared) {
    plan.blocks = cut_rows(rows, row_bytes, caches.l3 / 2, 1);
  }
  return plan;
}

Resources present_resources() {
  return {active_isa(), max_threads(), machine_caches()};
}

// Of a grid's sums over `channels` of the input for `result_channels`.
static Strips plan_grid(const TapGrid& grid, bool folded, int64_t images, int64_t channels, int64_t result_channels,
                        DType dtype, const Resources& r) {
  int64_t columns = kernels_of(r.isa).micro_columns[static_cast<int>(dtype)], tiles = ceil_div(result_channels, columns);
  GridPanel g = grid_panel(grid, channels, folded, 1, 1);
  int64_t weight_bytes = tiles * columns * int64_t(g.offsets.size()) * g.depth * acc_size(dtype);
  return plan_strips(images, grid.height, g.panel.blocks * g.panel.row_stride * acc_size(dtype),
                     std::max<int64_t>(g.row_advance, 1), std::max<int64_t>(g.panel.row_span, 1), tiles, weight_bytes,
                     r.threads, r.caches);
}

static WgradPlan plan_direct_wgrad(const ConvShape& c, DType dtype, const Resources& r) {
  int64_t columns = kernels_of(r.isa).micro_columns[static_cast<int>(dtype)], filters = c.K / c.groups;
  int64_t tiles = ceil_div(filters, columns);
  GridPanel g = grid_panel(fprop_grid(c), c.C / c.groups, can_fold(c), 1, 1);
  int64_t row_elements = g.panel.blocks * g.panel.row_stride * g.row_advance +
                         draw_panel(c, filters, 1, 1).panel.blocks * c.Q * kBlock;
  int64_t sums_bytes = g.offsets.size() * g.depth * tiles * columns * acc_size(dtype);
  return plan_wgrad(c.N, c.P, row_elements * acc_size(dtype), sums_bytes, tiles, r.threads, r.caches);
}

static WinogradPlan plan_winograd_pass(Pass pass, const ConvShape& c, DType dtype, const Resources& r) {
  int64_t columns = kernels_of(r.isa).micro_columns[static_cast<int>(dtype)], bytes = acc_size(dtype);
  auto tiles = [](int64_t extent) { return ceil_div(extent, kWinogradTile); };
  if (pass == Pass::kWgrad) {
    return plan_winograd_wgrad(c.N, tiles(c.P), tiles(c.Q), round_up(c.C, kBlock), round_up(c.K, columns), bytes,
                               r.threads, r.caches);
  }
  bool fprop = pass == Pass::kFprop;
  int64_t channels = fprop ? c.C : c.K, result_channels = fprop ? c.K : c.C;
  return plan_winograd(c.N, tiles(fprop ? c.P : c.H), tiles(fprop ? c.Q : c.W), round_up(channels, kBlock),
                       ceil_div(result_channels, columns), bytes, r.threads, r.caches);
}

static ConvPlan plan_depthwise_pass(Pass pass, const ConvShape& c, DType dtype, const Resources& r) {
  int64_t columns = kernels_of(r.isa).micro_columns[static_cast<int>(dtype)], tiles = ceil_div(c.C, columns);
  TapGrid grid = pass == Pass::kDgrad ? join_grids(dgrad_grids(c)) : fprop_grid(c);
  Panel panel = grid_panel(grid, c.C, false, 1, 1).panel;
  int64_t span = std::max<int64_t>(panel.row_span, 1), tile_bytes = columns * acc_size(dtype);
  int64_t ring_bytes = span * panel.columns * tile_bytes;
  ConvPlan plan{Algorithm::kDepthwise, {}, {}, {}};
  if (pass != Pass::kWgrad) {
    plan.strips = {plan_depthwise(c.N, grid.height, grid.width, span, ring_bytes, tiles, tile_bytes, r.threads,
                                  r.caches)};
    return plan;
  }
  int64_t wanted = depthwise_tasks(r.threads), lines = c.N * c.P;
  ring_bytes += c.Q * tile_bytes;
  int64_t splits = depthwise_splits(ring_bytes, tiles, tile_bytes, wanted, r.caches);
  int64_t most = std::max<int64_t>(lines / depthwise_least_rows(span), 1);
  plan.wgrad.parts = std::min(ceil_div(wanted, splits), most);
  if (plan.wgrad.parts * splits < r.threads) {
    splits = std::min<int64_t>(r.threads, tiles);
  }
  plan.wgrad.strips.splits = splits;
  return plan;
}

ConvPlan plan_conv(Pass pass, const ConvShape& c, DType dtype, Algorithm algorithm, const Resources& resources) {
  ConvPlan plan{algorithm, {}, {}, {}};
  int64_t channels = c.C / c.groups, filters = c.K / c.groups;
  if (algorithm == Algorithm::kDepthwise) {
    plan = plan_depthwise_pass(pass, c, dtype, resources);
  } else if (algorithm == Algorithm::kWinograd) {
    plan.winograd = plan_winograd_pass(pass, c, dtype, resources);
  } else if (pass == Pass::kWgrad) {
    plan.wgrad = plan_direct_wgrad(c, dtype, resources);
  } else if (pass == Pass::kFprop) {
    plan.strips = {plan_grid(fprop_grid(c), can_fold(c), c.N, channels, filters, dtype, resources)};
  } else {
    for (const TapGrid& grid : dgrad_grids(c)) {
      plan.strips.push_back(plan_grid(grid, false, c.N, filters, channels, dtype, resources));
    }
  }
  return plan;
}

}  // namespace resnet_fused::cpu
