"""Bugs in what the kernels share: the grid, the walk over rows, sums over a block, elements, alignment."""

from .mutant import Mutant
from .target import CONV_SCALAR

APPLY, BACKWARD, STATISTICS, STEM = (("bn_apply",), ("bn_backward",), ("bn_statistics",), ("stem_pool",))

SWEEP = [
    Mutant("sweep-elements-before-planes", "sweep.h",
           "return row / s.segments * s.pixels + row % s.segments * s.length;", "return row * s.length;",
           "a chunk's count is wrong where it spans planes", STATISTICS),
    Mutant("grid-tile-chunk-swapped", "sweep.cuh", """\
    chunk = blockIdx.x / s.tiles;
    tile = blockIdx.x % s.tiles;
""", """\
    chunk = blockIdx.x % s.tiles;
    tile = blockIdx.x / s.tiles;
""", "wrong grid decomposition: blocks work on each other's tiles", APPLY),
    Mutant("place-first-row", "sweep.cuh", "row = chunk * s.chunk_rows + (threadIdx.x >> s.lanes_log2);",
           "row = chunk * s.chunk_rows + (threadIdx.x >> s.lanes_log2) + 1;", "off by one: the first row is left out",
           BACKWARD),
    Mutant("sweep-tail-beyond", "sweep.cuh", "for (; i < count; ++i, offset += stride) {",
           "for (; i <= count; ++i, offset += stride) {", "`<=` for `<`: a row too many", STATISTICS),
    Mutant("sweep-unrolled-step", "sweep.cuh", "offset += Body::kLoads * stride",
           "offset += (Body::kLoads - 1) * stride", "unrolled rows overlap", STATISTICS),
    Mutant("sweep-channels-mask-inclusive", "sweep.cuh", "if (at.channel < s.channels && at.row < at.end) {",
           "if (at.channel <= s.channels && at.row < at.end) {", "`<=` for `<`: a tail channel", BACKWARD),
    Mutant("offset-truncated", "sweep.cuh", "run(at.row * s.channels + at.channel,",
           "run(static_cast<int16_t>(at.row * s.channels + at.channel),", "offsets of 16 bits, standing for 32",
           STATISTICS),
    Mutant("per-channel-unmasked", "sweep.cuh", "      if (at.channel < s.channels) {\n", "      if (true) {\n",
           "constants of channels that are not there are read", BACKWARD),
    Mutant("affine-rows-swapped", "sweep.cuh", """\
      : mean(static_cast<const A*>(affine), s, at),
        scale(static_cast<const A*>(affine) + s.channels, s, at),
""", """\
      : mean(static_cast<const A*>(affine) + s.channels, s, at),
        scale(static_cast<const A*>(affine), s, at),
""", "mean and scale swapped", APPLY),
]  # fmt: skip

REDUCE = [
    Mutant("reduce-barrier-channels-last", "reduce.cuh", """\
 = packed.word;
    }
    __syncthreads();
""", """\
 = packed.word;
    }
""", "missing __syncthreads between a block's sums and their reading", BACKWARD),
    Mutant("reduce-barrier-planes", "reduce.cuh", """\
      memory[thread / kWarp] = sum;
    }
    __syncthreads();
""", """\
      memory[thread / kWarp] = sum;
    }
""", "missing __syncthreads between warps' sums and their reading", BACKWARD),
    Mutant("reduce-barrier-again", "reduce.cuh", "  __syncthreads();  // memory may be used again\n", "",
           "missing __syncthreads before shared memory is used again", BACKWARD),
    Mutant("reduce-shuffle-distance", "reduce.cuh", "int distance = kWarp / 2;", "int distance = kWarp / 4;",
           "wrong shuffle distance: half of a warp is left out", STATISTICS),
    Mutant("reduce-first-warp", "reduce.cuh", "for (int warp = 1;", "for (int warp = 2;", "off by one: a warp's sum",
           STEM),
    Mutant("reduce-order-of-schedule", "reduce.cuh", """\
    if (thread % kWarp == 0) {
      memory[thread / kWarp] = sum;
    }
    __syncthreads();
    if (thread == 0) {
      for (int warp = 1; warp < kThreads / kWarp; ++warp) {
        sum += memory[warp];
      }
""", """\
    if (thread == 0) {
      memory[0] = A(0);
    }
    __syncthreads();
    if (thread % kWarp == 0) {
      atomicAdd(memory, sum);
    }
    __syncthreads();
    if (thread == 0) {
      sum = memory[0];
""", "not deterministic: warps add their sums in the order of the schedule", BACKWARD),
]  # fmt: skip

ELEMENTS = [
    Mutant("element-nan-dropped", "element.cuh", "return argument <= A(0) ? A(0) : x;",
           "return argument > A(0) ? x : A(0);", "NaN rule: x > 0 ? x : 0", APPLY),
    Mutant("element-mask-at-zero", "element.cuh", "return argument <= A(0) ? A(0) : x;",
           "return argument < A(0) ? A(0) : x;", "mask `<` for `<=`: a gradient where ReLU's argument is 0", BACKWARD),
]  # fmt: skip

PLANES = [
    Mutant("planes-stride", "sweep.cuh", "int64_t stride = int64_t{N} << s.lanes_log2;",
           "int64_t stride = int64_t{1} << s.lanes_log2;", "contiguous: accesses overlap", STATISTICS),
    Mutant("planes-segment-end", "sweep.cuh", "last = min(first + s.length, s.pixels);", "last = first + s.length;",
           "contiguous: the last segment reaches into the next plane", STATISTICS),
    Mutant("planes-rows", "sweep.cuh", "for (int64_t row = at.row; row < at.end; row += at.step) {",
           "for (int64_t row = at.row; row < at.end; ++row) {", "contiguous: threads share rows", STATISTICS),
]  # fmt: skip

PLAN = [
    Mutant("plan-tiles-floor", "sweep.h", "s.tiles = ceil_div(along, lanes);",
           "s.tiles = along < lanes ? 1 : along / lanes;", "the last tile of channels is left out", APPLY),
    Mutant("plan-segments-floor", "sweep.h", "s.segments = ceil_div(shape.pixels, s.length);",
           "s.segments = shape.pixels < s.length ? 1 : shape.pixels / s.length;", "the end of a plane is left out",
           APPLY),
    Mutant("plan-chunks-floor", "sweep.h", "s.chunks = ceil_div(s.rows, s.chunk_rows);",
           "s.chunks = s.rows < s.chunk_rows ? 1 : s.rows / s.chunk_rows;", "the last chunk of rows is left out",
           BACKWARD),
    Mutant("reduce-rows-first", "reduce.cuh", "for (int row = 0; row < kThreads / lanes; ++row) {",
           "for (int row = 1; row < kThreads / lanes; ++row) {", "off by one: a row's sum is left out", BACKWARD),
]  # fmt: skip

ROUNDING = [
    Mutant("element-rounding", "element.cuh", "return __float2bfloat16_rn(x);", "return __float2bfloat16_rz(x);",
           "results are cut off, not rounded", ("conv_fprop",), CONV_SCALAR),
]  # fmt: skip

MUTANTS = [*SWEEP, *PLANES, *PLAN, *REDUCE, *ELEMENTS, *ROUNDING]
