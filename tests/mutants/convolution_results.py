"""Bugs in the convolutions' epilogues, in their grids and in the second stage of their reductions."""

from .convolution import DGRAD, FPROP, WGRAD, mutants
from .target import CONV, CONV_FLOAT32, CONV_LARGE, CONV_SCALAR

MERGE = ("conv_merge",)
TILE_OF = "    if (there) {\n      const float* partial = p.partials + static_cast<int64_t>(tile) * "
STATISTICS_TILE, SUMS_TILE = f"{TILE_OF}kStatisticsRows", f"{TILE_OF}2"

EPILOGUE = [
    *mutants("conv_epilogue.cuh", FPROP, [
        ("staged-barrier", "    product.store(staged, kPitch);\n    __syncthreads();\n",
         "    product.store(staged, kPitch);\n", "missing barrier between the accumulators and their reading"),
        ("sum-columns-barrier", "second);\n    }\n    __syncthreads();\n", "second);\n    }\n",
         "missing barrier between the warps' sums and their reading"),
        ("sum-columns-first-warp", "for (int warp = 0; warp < kTileWarps; ++warp) {",
         "for (int warp = 1; warp < kTileWarps; ++warp) {", "off by one: a warp's sum is left out"),
        ("sum-columns-lanes", "int lanes = kRowPieces; lanes < 32;", "int lanes = 2 * kRowPieces; lanes < 32;",
         "wrong shuffle distance: half of a warp's rows are left out"),
        ("sum-columns-second", "totals.second += sums[(kTileWarps + warp) *", "totals.second += sums[warp *",
         "the first sum for the second"),
        ("output-columns-vector", "vector && count > 0,", "vector,", "unmasked tail: columns after the group's last"),
        ("output-columns-group", "start = group * group_channels;", "start = 0;", "wrong group offset"),
        ("output-columns-end", "start + group_channels};", "start + group_channels + 1};",
         "`<=` for `<`: sums of a column that is another group's"),
        ("epilogue-affine-rows", "load_channels(shift, affine + 2 * channels + columns.channel, columns.count);",
         "load_channels(shift, affine + channels + columns.channel, columns.count);",
         "the scale's row for the shift's"),
    ], target=CONV),
    *mutants("conv_epilogue.cuh", FPROP, [
        ("staged-pitch", "kPitch = TileShape::kTileN + 8;", "kPitch = TileShape::kTileN + 16;",
         "the staged tile is larger than its memory"),
    ], target=CONV_LARGE),
    *mutants("conv_element.cuh", FPROP, [
        ("store-elements-unmasked", "    if (e < count) {\n      to[e] = from_acc<T>(v[e]);\n    }\n",
         "    to[e] = from_acc<T>(v[e]);\n", "unmasked tail: elements after the last"),
    ], target=CONV_SCALAR),
]  # fmt: skip

FPROP_RESULTS = [
    *mutants("conv_fprop.cuh", FPROP, [
        ("fprop-statistics-unrounded", "store_rounded(to, v,", "store_elements(to, v,", "statistics before rounding"),
        ("fprop-statistics-tail", """\
    if (WHOLE || tile.row(i) < rows) {
      tile.read(v, i);
      store_rounded(to, v, columns.count, WHOLE || columns.vector);
""", """\
    {
      tile.read(v, i);
      if (WHOLE || tile.row(i) < rows) {
        store_rounded(to, v, columns.count, WHOLE || columns.vector);
      }
""", "unmasked tail: pixels after the last count as 0"),
        ("fprop-statistics-partials", "static_cast<int64_t>(row_tile) * kStatisticsRows * K + channel;",
         "static_cast<int64_t>(row_tile) * 2 * K + channel;", "wrong stride between partials"),
        ("fprop-pivot-infinite", "return v - v == 0.0f ? v : 0.0f;", "return v;", "infinite sums are NaN"),
        ("fprop-pivot-row", "tile.read_row(moments.pivot, 0);", "tile.read_row(moments.pivot, 1);",
         "wrong pivot: the second row's"),
        ("fprop-pivot-of-partial", "pivot_of<T>(tile.staged[threadIdx.x]);",
         "pivot_of<T>(tile.staged[tile.kPitch + threadIdx.x]);", "wrong pivot: the second row's, to the merge"),
        ("fprop-whole-rows", "if (rows == TileShape::kTileM && p.vector_store &&", "if (p.vector_store &&",
         "unmasked tail: rows of a tile that is taken for whole"),
        ("fprop-whole-columns",
         "p.vector_store && columns.first_channel + TileShape::kTileN <= columns.end_channel) {", "p.vector_store) {",
         "unmasked tail: columns of a tile that is taken for whole"),
        ("fprop-whole-pieces", "if (rows == TileShape::kTileM && p.vector_store &&",
         "if (rows == TileShape::kTileM &&", "pieces of 16 bytes where a row begins within one"),
        ("fprop-plain-offset-truncated",
         "static_cast<T*>(p.conv.y) + static_cast<int64_t>(row_tile) * TileShape::kTileM * K",
         "static_cast<T*>(p.conv.y) + static_cast<int16_t>(row_tile * TileShape::kTileM * K)",
         "offsets of 16 bits, standing for 32"),
        ("fprop-relu-first", "      float z = affine.z(v[e], e) + r;\n      v[e] = conv.relu ? relu_of(z) : z;\n",
         "      float z = affine.z(v[e], e);\n      v[e] = (conv.relu ? relu_of(z) : z) + r;\n",
         "ReLU before the residual"),
        ("fprop-residual-affine", "residual_affine.z(residual[e], e)", "affine.z(residual[e], e)",
         "the residual by the wrong affine"),
        ("fprop-offset-truncated",
         "int64_t first = static_cast<int64_t>(row_tile) * TileShape::kTileM * K + columns.channel;",
         "int64_t first = static_cast<int16_t>(row_tile * TileShape::kTileM * K + columns.channel);",
         "offsets of 16 bits, standing for 32"),
        ("fprop-group", "int64_t filter = static_cast<int64_t>(block.group) * group_filters + first_filter;",
         "int64_t filter = first_filter;", "the first group's filters for all"),
    ], target=CONV),
    *mutants("conv_fprop.cuh", FPROP, [
        ("fprop-no-pivot", "return v - v == 0.0f ? v : 0.0f;", "return 0.0f;",
         "E[x²] − E[x]²: cancels where the mean is large"),
    ], target=CONV_FLOAT32),
    *mutants("conv_fprop.cu", FPROP, [
        ("fprop-workspace", "plan_conv_fprop(params).row_tiles * kStatisticsRows * row",
         "plan_conv_fprop(params).row_tiles * 2 * row", "workspace too small"),
        ("fprop-residual-alignment", "all_aligned(params.y, params.residual)", "all_aligned(params.y)",
         "vectors although the residual is misaligned"),
        ("fprop-store-pieces", "whole_pieces(shape.K, params.problem) && all_aligned", "all_aligned",
         "pieces of 16 bytes where a row begins within one"),
    ], target=CONV),
]  # fmt: skip

DGRAD_RESULTS = [
    *mutants("conv_dgrad.cuh", DGRAD, [
        ("dgrad-residue", "(residue + padding - first * dilation) % stride != 0",
         "(residue + padding + first * dilation) % stride != 0", "wrong residue: taps of another class of pixels"),
        ("dgrad-origin", "origin = (residue + padding - first * dilation) / stride;",
         "origin = (residue + padding) / stride;", "the first tap's distance is ignored"),
        ("dgrad-first-tap", "* shape.S + pixel_class.s.first;", "* shape.S;",
         "wrong residue: the filter from its first column"),
        ("dgrad-class-last-row", "|| h >= shape.H ||", "|| h > shape.H ||", "`>` for `>=`: a row of the next image"),
        ("dgrad-class-last-column", "|| w >= shape.W)", "|| w > shape.W)", "`>` for `>=`: the next row's first pixel"),
        ("dgrad-add-unmasked", "(conv.add_out ? zero_up_to_zero(add_out[e], other[e]) : other[e])", "other[e]",
         "add without mask"),
        ("dgrad-add-unrounded", "v[e] = rounded<T>(v[e]) + (conv", "v[e] = v[e] + (conv",
         "the sum is rounded once, not twice"),
        ("dgrad-sums-unrounded", "g = rounded<T>(v[e]);", "g = v[e];", "sums before rounding"),
        ("dgrad-sums-mask", "zero_up_to_zero(affine_of(centred, affine.scale[e], affine.shift[e]), g) : g;",
         "zero_up_to_zero(other[e], g) : g;", "wrong mask: x, not z(x)"),
        ("dgrad-steps", "    steps.next_r -= s.count * (steps.next_s + steps.channels * steps.per_c);\n", "",
         "a row of taps begins where the last ended"),
        ("dgrad-class-of-tile", "int first_pixel = (block.row_tile - index * class_tiles) * TileShape::kTileM;",
         "int first_pixel = block.row_tile * TileShape::kTileM;", "pixels of a class begin at another's"),
        ("dgrad-linear-end", "if (number >= shape.N * shape.H * shape.W) {",
         "if (number > shape.N * shape.H * shape.W) {", "`>` for `>=`: a pixel after the last"),
        ("dgrad-sums-columns", "threadIdx.x; totals.there && channel < columns.end_channel) {",
         "threadIdx.x; totals.there) {", "unmasked tail: sums of channels after the last"),
    ], target=CONV),
    *mutants("conv_dgrad.cu", DGRAD, [
        ("dgrad-tap-step", "shape.stride[i] / std::gcd(shape.stride[i], shape.dilation[i])", "shape.stride[i]",
         "taps that reach a class are passed over where stride and dilation have a divisor"),
        ("dgrad-add-alignment", "all_aligned(params.dx, params.add, params.add_out, params.input.x)",
         "all_aligned(params.dx, params.add, params.input.x)", "vectors although the mask is misaligned"),
        ("dgrad-linear", "shape.stride[0] * shape.stride[1] == 1};", "shape.stride[1] == 1};",
         "pixels of a class are stored one after another"),
        ("dgrad-invstd", "params.input.affine + 3 * int64_t{shape.C}", "params.input.affine + 1 * int64_t{shape.C}",
         "the scale for invstd"),
    ], target=CONV),
]  # fmt: skip

WGRAD_RESULTS = [
    *mutants("conv_wgrad.cuh", WGRAD, [
        ("wgrad-split-first", "first = split * p.plan.split_chunks * kChunk;",
         "first = split * (p.plan.split_chunks - 1) * kChunk;", "wrong split bounds: pixels are counted twice"),
        ("wgrad-group", "int64_t filter = static_cast<int64_t>(group) * group_filters",
         "int64_t filter = static_cast<int64_t>(block.group) * group_filters",
         "wrong group offset: splits count as groups"),
        ("wgrad-rows-tail", "    if (tile.row(i) >= rows) {\n      break;\n    }\n", "",
         "unmasked tail: filters after the last"),
        ("wgrad-columns-tail", "p.vector_store && count > 0);", "p.vector_store);",
         "unmasked tail: columns after the last"),
    ], target=CONV),
]  # fmt: skip

MERGES = [
    *mutants("conv_merge.cu", MERGE, [
        ("conv-merge-last-count", "min(p.tile_pixels, p.pixels - tile * p.tile_pixels);", "p.tile_pixels;",
         "wrong count of the last tile"),
        ("conv-merge-between-tiles", "d * (2 * of_tile + shift);", "d * 2 * of_tile;",
         "squares made relative to another pivot without n d²"),
        ("conv-merge-cross-term", "d * (2 * of_tile + shift);", "d * shift;",
         "squares made relative to another pivot without 2 d Σ"),
        ("conv-merge-shift", "sum += of_tile + shift;", "sum += of_tile;", "sums relative to different pivots"),
        ("conv-merge-mean", "square - sum * mean;", "square;", "deviations from the first tile's pivot"),
        ("conv-merge-barrier-first", "  __syncthreads();\n  if (threadIdx.x % 32 < kMergedChannels) {\n",
         "  if (threadIdx.x % 32 < kMergedChannels) {\n", "missing barrier before shared memory is used again"),
        ("conv-merge-barrier-second", "[threadIdx.x % 32] = value;\n  }\n  __syncthreads();\n",
         "[threadIdx.x % 32] = value;\n  }\n", "missing barrier between the warps' sums and their reading"),
        ("conv-merge-lanes", "int lanes = kMergedChannels; lanes < 32;", "int lanes = 2 * kMergedChannels; lanes < 32;",
         "wrong shuffle distance: every second segment is left out"),
        ("conv-merge-first-warp", "for (int warp = 0; warp < kWarps; ++warp) {",
         "for (int warp = 1; warp < kWarps; ++warp) {", "off by one: a warp's segments are left out"),
        ("conv-merge-channels", "bool there = channel < p.channels;\n  double pivot",
         "bool there = true;\n  double pivot", "unmasked tail: channels after the last"),
        ("conv-merge-round", "tile < p.tiles; tile += kMergedSegments) {\n" + STATISTICS_TILE,
         "tile < min(p.tiles, kMergedSegments); tile += kMergedSegments) {\n" + STATISTICS_TILE,
         "tiles after the first round of segments are left out"),
        ("conv-sums-round", "tile < p.tiles; tile += kMergedSegments) {\n" + SUMS_TILE,
         "tile < min(p.tiles, kMergedSegments); tile += kMergedSegments) {\n" + SUMS_TILE,
         "tiles after the first round of segments are left out"),
        ("conv-sums-invstd", "sum_x * p.invstd[channel];", "sum_x;", "the second sum is not times invstd"),
        ("conv-splits-first", "for (int split = segment;", "for (int split = segment + 1;",
         "off by one: the first split is left out"),
        ("conv-splits-segment", "for (int other = 1;", "for (int other = 2;", "off by one: a segment is left out"),
        ("conv-splits-barrier", "  sums[segment][column] = sum;\n  __syncthreads();\n",
         "  sums[segment][column] = sum;\n", "missing barrier between the segments' sums and their reading"),
    ], target=CONV),
    *mutants("conv_merge.cu", MERGE, [
        ("conv-splits-tail", "if (segment == 0 && element < p.elements) {",
         "if (segment == 0 && element <= p.elements) {", "`<=` for `<`: an element too many"),
    ], target=CONV_SCALAR),
]  # fmt: skip

MUTANTS = [*EPILOGUE, *FPROP_RESULTS, *DGRAD_RESULTS, *WGRAD_RESULTS, *MERGES]
