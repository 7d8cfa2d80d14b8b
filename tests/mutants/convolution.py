"""Bugs in what brings the operands of the convolutions, in their product and in its pipeline."""

from .mutant import Mutant
from .target import CONV, CONV_FLOAT32, CONV_LARGE, CONV_SCALAR, CONV_TF32

FPROP, DGRAD, WGRAD = (("conv_fprop",), ("conv_dgrad",), ("conv_wgrad",))


def mutants(file, sources, rows, **options):
    return [Mutant(name, file, old, new, symptom, sources, **options) for name, old, new, symptom in rows]


GATHER = [
    *mutants("conv_gather.cuh", FPROP, [
        ("gather-halo-row", "steps.taps_r, window.height)", "steps.taps_r, window.height + 1)",
         "off-by-one halo: the row below the image is read"),
        ("gather-halo-column", "steps.taps_s, window.width)", "steps.taps_s, window.width + 1)",
         "off-by-one halo: the column right of the image is the next row's first"),
        ("gather-halo-before", "static_cast<unsigned>(first + dilation * tap) < static_cast<unsigned>(size)",
         "first + dilation * tap < size", "what is left of the image, or above, is read"),
        ("gather-tail-pixels", "rows[i] = m < pixels ? ", "rows[i] = true ? ", "unmasked tail: pixels after the last"),
        ("gather-row-bit", "rows[i] >> tap.r &", "rows[i] >> (tap.r + 1) &", "the next row of taps decides for a row"),
        ("gather-column-bit", "columns[i] >> tap.s &", "columns[i] >> (tap.s + 1) &",
         "the next tap decides for a tap"),
        ("gather-last-tap", "tap < taps; ++tap", "tap < taps - 1; ++tap", "off by one: the last tap meets nothing"),
        ("gather-group", "group_channel(group * steps.channels)", "group_channel(0)", "wrong group offset"),
        ("gather-form-channel", "form_channel(next.c)", "form_channel(0)",
         "a thread's prologue begins with another's channels"),
        ("gather-form-channel-wrap", "while (form_channel >= steps.channels) {",
         "if (form_channel >= steps.channels) {", "the prologue's channels are off where a chunk has several taps"),
        ("gather-offset-truncated",
         "static_cast<int64_t>(first_image) * window.height * window.width * window.channels;",
         "static_cast<int16_t>(first_image * window.height * window.width * window.channels);",
         "offsets of 16 bits, standing for 32"),
        ("gather-first-image", "(pixel.n - first_image) * window.height", "pixel.n * window.height",
         "images counted twice"),
        ("gather-strides", "window.stride[1] * pixel.j", "window.stride[0] * pixel.j",
         "one stride for both directions"),
        ("gather-dilations", "meeting(column, window.dilation[1],", "meeting(column, window.dilation[0],",
         "one dilation for both directions"),
    ], target=CONV),
    *mutants("conv_gather.cuh", FPROP, [
        ("gather-elements-tap", "piece[e] = meets(tap, i) ?", "piece[e] = meets(next, i) ?",
         "halo of a piece's first element for all"),
        ("gather-elements-channel", "source.element(offset, group_channel + tap.c)", "source.element(offset, tap.c)",
         "the prologue of the first group"),
    ], target=CONV_SCALAR),
]  # fmt: skip

FORMED = "if (there >> (Own::kCount - 1 - k) & 1) {"
COPIES = [
    *mutants("conv_copies.cuh", FPROP, [
        ("copies-padding-formed", FORMED, "if (true) {", "padding before the prologue: z(0), not 0"),
        ("copies-lag", "copied >> Own::kCount * lag;", "copied >> Own::kCount * (lag - 1);",
         "wrong stage: what was copied one chunk later"),
        ("copies-skip", "skip() { copied <<= Own::kCount; }", "skip() {}",
         "the last chunks take others' padding for theirs"),
        ("copies-quarter-constants", "constants(source, channel + first);", "constants(source, channel + 4 * i);",
         "half of the threads have the other quarter's constants"),
        ("copies-quarters-in-order", "int first = 4 * (i ^ begin);", "int first = 4 * i;",
         "all threads begin with the first quarter: right, but banks conflict"),
        ("copies-quarters-half", "for (int i = 0; i < kQuarters; ++i) {", "for (int i = 0; i < 1; ++i) {",
         "half of each piece is not formed"),
    ], target=CONV),
    *mutants("conv_copies.cuh", FPROP, [
        ("copies-order", FORMED, "if (there >> k & 1) {", "padding of the thread's other pieces"),
    ], target=CONV_LARGE),
    *mutants("conv_copies.cuh", DGRAD, [
        ("copies-tensors", "base[t] = source.tensor(t) + first;", "base[t] = source.tensor(0) + first;",
         "the gradient in place of what masks it"),
    ], target=CONV),
    *mutants("conv_copies.cuh", WGRAD, [
        ("copies-padding-formed-wgrad", FORMED, "if (true) {", "padding before the prologue: z(0), not 0"),
    ], target=CONV),
]  # fmt: skip

WINDOW = [
    *mutants("conv_window.cuh", FPROP, [
        ("window-next-row", "per_r - taps[1] * per_s", "per_r - (taps[1] - 1) * per_s",
         "a tap's row begins one tap late"),
        ("window-paddings", "{-s.padding[0], -s.padding[1]}", "{-s.padding[1], -s.padding[0]}", "paddings swapped"),
        ("window-dilated-row", "w.dilation[0] * w.width * w.channels", "w.width * w.channels",
         "dilation along rows alone"),
        ("divisor-factor", "<< 32) / d + 1;", "<< 32) / d;", "off by one: multiples are divided too small"),
        ("divisor-power-of-two", "while (int64_t{1} << shift < d) {", "while (int64_t{1} << shift <= d) {",
         "off by one: a factor of 33 bits where the divisor is a power of 2"),
        ("divisor-shift", ">> shift);\n  }\n};", ">> (shift - 1));\n  }\n};",
         "off by one: quotients are twice as large"),
    ], target=CONV, host=True),
    *mutants("conv_window.cuh", WGRAD, [
        ("window-linear", """\
height == rows.value && width == columns.value && taps[0] * taps[1] == 1 && stride[0] * stride[1] == 1 &&
           origin[0] == 0 && origin[1] == 0;
""", "taps[0] * taps[1] == 1;\n", "pixels that are strides apart are read one after another"),
    ], target=CONV, host=True),
    *mutants("conv_window.cuh", DGRAD, [
        ("window-cursor-once", "while (c >= steps.channels) {", "if (c >= steps.channels) {",
         "a chunk spans more taps than the cursor passes"),
    ], target=CONV),
]  # fmt: skip

PIXEL_ROWS = [
    *mutants("conv_pixel_rows.cuh", WGRAD, [
        ("rows-carry", "if (at.j >= window.columns.value) {", "if (at.j > window.columns.value) {",
         "off by one: a column too many"),
        ("rows-tail", "return next.m < end && h <", "return h <", "unmasked tail: pixels after the last"),
        ("rows-group", "channel = group_channel + column - tap * group_channels;",
         "channel = column - tap * group_channels;", "wrong group offset"),
        ("rows-tap", "r = tap / window.taps[1]", "r = tap / window.taps[0]", "rows and columns of the filter mistaken"),
        ("rows-origin", "tap_column = window.origin[1]", "tap_column = window.origin[0]",
         "one padding for both directions"),
        ("rows-offset-truncated",
         "return static_cast<int64_t>(next.at.n) * (window.height * window.width * window.channels)",
         "return static_cast<int16_t>(next.at.n * (window.height * window.width * window.channels))",
         "offsets of 16 bits, standing for 32"),
        ("rows-step", "step(pixel_at(Own::kRowStep,", "step(pixel_at(Own::kRowStep - 1,",
         "off by one: rows are skipped"),
        ("rows-linear-end", "own_column < columns && next.m < end);", "own_column < columns);",
         "unmasked tail: pixels after the split's last"),
        ("rows-linear-step", "next.m += Own::kRowStep;", "next.m += Own::kRowStep / 2;", "rows overlap"),
        ("rows-linear-offset-truncated", "static_cast<int64_t>(next.m) * window.channels + channel;",
         "static_cast<int16_t>(next.m * window.channels) + channel;", "offsets of 16 bits, standing for 32"),
    ], target=CONV),
    *mutants("conv_pixel_rows.cuh", WGRAD, [
        ("rows-elements-column", "locate(own_column + e);", "locate(own_column);",
         "one column's tap for a whole piece"),
    ], target=CONV_SCALAR),
]  # fmt: skip

FILTERS = [
    *mutants("conv_filters.cuh", FPROP, [
        ("filters-rows", "bool row_there = Own::row(i) < count;", "bool row_there = true;",
         "unmasked tail: filters after the last are read"),
        ("filters-length", "from, row_there && next < length);", "from, row_there);",
         "unmasked tail: the filter's end is read across"),
    ], target=CONV),
    *mutants("conv_filters.cuh", DGRAD, [
        ("filters-channels", "from, next.inside(steps) && channel < count);", "from, next.inside(steps));",
         "unmasked tail: channels after the last are read"),
        ("filters-row-step", "next.advance(steps, Own::kRowStep);", "next.advance(steps, Own::kRowStep / 2);",
         "rows of taps overlap"),
    ], target=CONV),
]  # fmt: skip

PROLOGUE = [
    *mutants("conv_prologue.cuh", FPROP, [
        ("prologue-nan", "v[e] = relu ? relu_of(z) : z;", "v[e] = relu ? fmaxf(z, 0.0f) : z;",
         "NaN does not pass ReLU"),
        ("prologue-relu", "v[e] = relu ? relu_of(z) : z;", "v[e] = z;", "ReLU is left out"),
    ], target=CONV),
    *mutants("arch/relu.cuh", FPROP, [
        ("relu-nan", "max.NaN.f32", "max.f32", "NaN does not pass ReLU"),
    ], target=CONV_SCALAR),
    *mutants("conv_prologue.cuh", DGRAD, [
        ("prologue-mask-tensor", "quarter + (raw ? 2 : 1) * tile_bytes", "quarter + tile_bytes",
         "wrong mask tensor: the raw output masks"),
        ("prologue-mask-twice", "if (relu && !out) {", "if (relu) {", "masked by z where the output says otherwise"),
        ("prologue-constants", "load_constants(slope, source.slope + channel);",
         "load_constants(slope, source.slope + channel / 8 * 8);",
         "the second half of a piece has the first's constants"),
        ("prologue-slope-sign", "fmaf(-slope_of_g,", "fmaf(slope_of_g,", "sign of the second mean's term"),
    ], target=CONV),
    *mutants("conv_prologue.cuh", WGRAD, [
        ("prologue-relu-ignored", "out(t.relu ? static_cast<const T*>(t.out) : nullptr)",
         "out(nullptr)", "the mask of the output is ignored: z masks"),
    ], target=CONV),
    *mutants("conv_prologue.cuh", FPROP, [
        ("prologue-element-rows", "__ldg(a + channels), __ldg(a + 2 * channels));\n    return",
         "__ldg(a + 2 * channels), __ldg(a + channels));\n    return", "scale and shift swapped"),
    ], target=CONV_SCALAR),
]  # fmt: skip

PIPELINE = [
    *mutants("conv_mainloop.cuh", FPROP, [
        ("mainloop-wait", "    stages == 3 ? cp_async_wait<0>() : cp_async_wait<1>();",
         "    stages == 3 ? cp_async_wait<1>() : cp_async_wait<2>();", "waits for one group too few"),
        ("mainloop-barrier", "    __syncthreads();  // the current", "    // the current",
         "missing barrier: a stage is used before all have formed it"),
        ("mainloop-barrier-last", "  __syncthreads();  // shared memory is free", "  // shared memory is free",
         "missing barrier: the epilogue's tile overwrites operands that are read"),
        ("mainloop-stages", "end = stages * plan.stage_bytes;", "end = (stages - 1) * plan.stage_bytes;",
         "wrong stage: one is missing from the ring"),
        ("mainloop-lag", "lag = stages - 2,", "lag = stages - 3,", "wrong stage: the padding of the next chunk"),
        ("mainloop-form-late", "    current = after(current);\n    form(chunk + 1, current);\n",
         "    form(chunk + 1, current);\n    current = after(current);\n",
         "wrong stage: a chunk is formed again after its product"),
        ("mainloop-skip", "      a.skip();\n      b.skip();\n", "",
         "the last chunks take others' padding for theirs"),
        ("mainloop-form-last", "if (chunk < chunks) {\n      a.form", "if (chunk < chunks - 1) {\n      a.form",
         "off by one: the last chunk is not formed"),
        ("mainloop-load-last", "if (chunk < chunks) {\n      a.load", "if (chunk < chunks - 1) {\n      a.load",
         "off by one: the last chunk is not loaded"),
    ], target=CONV),
    *mutants("conv_mainloop.cuh", DGRAD, [
        ("mainloop-wait-first", "cp_async_wait<1>() : cp_async_wait<2>();\n  form",
         "cp_async_wait<2>() : cp_async_wait<3>();\n  form", "the first chunk is formed before it is there"),
        ("mainloop-stage-bytes", "    cp_async_commit();  // of nothing",
         "    if (chunk >= stages - 2) {\n      cp_async_commit();\n    }\n    // of nothing",
         "one group for all of the first chunks"),
    ], target=CONV),
    *mutants("arch/cp_async.cuh", FPROP, [
        ("copy-zeros", "int bytes = valid ? 16 : 0;", "int bytes = 16;", "what is not there is copied, not zeros"),
    ], target=CONV),
]  # fmt: skip

PRODUCT = [
    *mutants("conv_product.cuh", FPROP, [
        ("product-fragments-b", "b[j][0] = two[0], b[j][1] = two[1], b[j + 1][0] = two[2], b[j + 1][1] = two[3];",
         "b[j][0] = two[0], b[j][1] = two[2], b[j + 1][0] = two[1], b[j + 1][1] = two[3];",
         "swapped fragment registers"),
        ("product-fragments-a", "int extent_half = EXTENT_FIRST ? matrix % 2 : matrix / 2;",
         "int extent_half = matrix / 2;", "a's fragments in the order of b's"),
        ("product-swizzle-one-side",
         "ldmatrix_x4(r, shared_address(tile) + Layout::offset(first + 8 * extent_half + line, k_piece + k_half));",
         "ldmatrix_x4(r, shared_address(tile) + ((first + 8 * extent_half + line) * Layout::kRowPieces + k_piece + k_half)"
         " * kPieceBytes);",
         "wrong swizzle on one side"),
        ("product-store-rows", "reinterpret_cast<float2*>(at + 8 * pitch)", "reinterpret_cast<float2*>(at + 4 * pitch)",
         "the second half of the accumulators in the wrong rows"),
        ("product-half-of-the-chunk", "k_piece < TileShape::kRowBytes / kPieceBytes; k_piece += 2) {",
         "k_piece < TileShape::kRowBytes / kPieceBytes - 2; k_piece += 2) {", "half of each chunk is left out"),
    ], target=CONV),
    *mutants("conv_tile.cuh", FPROP, [
        ("tile-unswizzled", "piece ^ (row * kRowPieces / 8 % kRowPieces)", "piece",
         "no swizzle: right, but banks conflict"),
    ], target=CONV),
    *mutants("conv_tile.cuh", WGRAD, [
        ("tile-unswizzled-outer", "(piece % 8 ^ row % 8)", "piece % 8",
         "no swizzle: right, but banks conflict"),
    ], target=CONV),
    *mutants("arch/ldmatrix.cuh", DGRAD, [
        ("ldmatrix-not-transposed", "m8n8.x4.trans.shared.b16", "m8n8.x4.shared.b16", "a transposed operand is not"),
    ], target=CONV),
    *mutants("arch/mma.cuh", FPROP, [
        ("mma-registers", 'f32.bf16.bf16.f32 "\n      "{%0, %1, %2, %3}, {%4, %5, %6, %7}',
         'f32.bf16.bf16.f32 "\n      "{%0, %1, %2, %3}, {%4, %6, %5, %7}', "swapped fragment registers"),
    ], target=CONV),
    *mutants("arch/mma.cuh", FPROP, [
        ("mma-truncates", 'asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));',
         "rounded = bits;", "operands are cut off, not rounded, to tf32"),
    ], target=CONV_TF32),
    *mutants("conv_product_ffma.cuh", WGRAD, [
        ("ffma-reduction-row", "Layout::offset(4 * k_piece + k, extent / 4)", "Layout::offset(4 * k_piece, extent / 4)",
         "one row of the reduction four times"),
    ], target=CONV_FLOAT32),
    *mutants("conv_product_ffma.cuh", FPROP, [
        ("ffma-first-column", "column(threadIdx.x / kRowStep)", "column(threadIdx.x / kRowStep % 4)",
         "half of the columns are computed twice"),
    ], target=CONV_FLOAT32),
]  # fmt: skip

HEURISTICS = [
    *mutants("heuristics.h", FPROP, [
        ("plan-rows-floor", "plan.row_tiles = ceil_div(rows, size.m);",
         "plan.row_tiles = std::max<int64_t>(rows / size.m, 1);", "the last tile of rows is left out"),
        ("plan-weights-alignment", "vector_activation(p.input, p.problem) && aligned(p.w)",
         "vector_activation(p.input, p.problem)", "vectors although the weights are misaligned"),
    ], target=CONV),
    *mutants("heuristics.h", FPROP, [
        ("plan-staged-bytes", "4 * (tile.m * (tile.n + 8) +", "4 * (tile.m * tile.n +",
         "the epilogue's tile does not fit"),
    ], target=CONV_LARGE),
    *mutants("heuristics.h", DGRAD, [
        ("plan-class-floor", "return ceil_div(size, stride);", "return size / stride;",
         "the last pixels of a class are left out"),
        ("plan-draw-tensors", "(t.relu && t.out != nullptr)", "(t.relu && t.out != nullptr && !t.raw)",
         "no memory for the mask's tile"),
        ("plan-draw-alignment", "all_aligned(t.affine, t.mean_g, t.slope)", "all_aligned(t.affine, t.mean_g)",
         "vectors although the slopes are misaligned"),
    ], target=CONV),
    *mutants("heuristics.h", WGRAD, [
        ("plan-splits-floor", "ceil_div(chunks, plan.split_chunks), 1)", "chunks / plan.split_chunks, 1)",
         "wrong split bounds: the last split is left out"),
    ], target=CONV),
]  # fmt: skip

MUTANTS = [*GATHER, *COPIES, *WINDOW, *PIXEL_ROWS, *FILTERS, *PROLOGUE, *PIPELINE, *PRODUCT, *HEURISTICS]
