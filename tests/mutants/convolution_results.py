"""Bugs in the convolutions' epilogues, in their grids and in the second stage of their reductions."""

from .convolution import DGRAD, FPROP, WGRAD, mutants
from .target import CONV, CONV_FLOAT32, CONV_LARGE, CONV_SCALAR

MERGE = ("conv_merge",)

EPILOGUE = [
    *mutants("conv_epilogue.cuh", FPROP, [
        ("staged-barrier", "    product.store(staged, kPitch);\n    __syncthreads();\n",
         "    product.store(staged, kPitch);\n", "missing barrier between the accumulators and their reading"),
        ("sum-columns-barrier-first", "    float of_row[kPiece<T>];\n    __syncthreads();\n",
         "    float of_row[kPiece<T>];\n", "missing barrier before the sums' memory is used again"),
        ("sum-columns-barrier-second", "column(), v);\n    __syncthreads();\n", "column(), v);\n",
         "missing barrier between the rows' sums and their reading"),
        ("sum-columns-first-row", "for (int r = 1; r < kRowStep; ++r) {", "for (int r = 2; r < kRowStep; ++r) {",
         "off by one: a row's sum is left out"),
        ("output-columns-vector", "vector && count > 0};", "vector};", "unmasked tail: columns after the group's last"),
        ("output-columns-group", "return {group * group_channels + first,", "return {first,", "wrong group offset"),
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
        ("fprop-statistics-unrounded", "float deviation = rounded<T>(v[e]) - mean[e];",
         "float deviation = v[e] - mean[e];", "statistics before rounding"),
        ("fprop-statistics-tail", "    if (tile.row(i) < rows) {\n      tile.read(v, i);\n#pragma",
         "    if (true) {\n      tile.read(v, i);\n#pragma", "unmasked tail: pixels after the last count as 0"),
        ("fprop-statistics-partials", "static_cast<int64_t>(row_tile) * kStatisticsRows * K + columns.channel;",
         "static_cast<int64_t>(row_tile) * 2 * K + columns.channel;", "wrong stride between partials"),
        ("fprop-relu-first",
         "      float z = affine.z(v[e], e) + r;\n      v[e] = conv.relu ? zero_up_to_zero(z, z) : z;\n",
         "      float z = affine.z(v[e], e);\n      v[e] = (conv.relu ? zero_up_to_zero(z, z) : z) + r;\n",
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
    ], target=CONV),
    *mutants("conv_dgrad.cu", DGRAD, [
        ("dgrad-tap-step", "shape.stride[i] / std::gcd(shape.stride[i], shape.dilation[i])", "shape.stride[i]",
         "taps that reach a class are passed over where stride and dilation have a divisor"),
        ("dgrad-add-alignment", "all_aligned(params.dx, params.add, params.add_out, params.input.x)",
         "all_aligned(params.dx, params.add, params.input.x)", "vectors although the mask is misaligned"),
        ("dgrad-invstd", "params.input.affine + 3 * int64_t{shape.C}", "params.input.affine + 1 * int64_t{shape.C}",
         "the scale for invstd"),
    ], target=CONV),
]  # fmt: skip

WGRAD_RESULTS = [
    *mutants("conv_wgrad.cuh", WGRAD, [
        ("wgrad-split-first", "first = split * p.plan.split_chunks * kTileK<T>;",
         "first = split * (p.plan.split_chunks - 1) * kTileK<T>;", "wrong split bounds: pixels are counted twice"),
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
        ("conv-merge-last-count", "count = min(p.tile_pixels, p.pixels - tile * p.tile_pixels);",
         "count = p.tile_pixels;", "Chan's merge with a wrong count of the last tile"),
        ("conv-merge-between-tiles", "m2 += moments.m2 + moments.count * deviation * deviation;", "m2 += moments.m2;",
         "Chan's merge without n_i (mean_i − mean)²"),
        ("conv-merge-barrier-first", "  __syncthreads();\n  values[segment][channel] = value;\n",
         "  values[segment][channel] = value;\n", "missing barrier before shared memory is used again"),
        ("conv-merge-barrier-second", "  values[segment][channel] = value;\n  __syncthreads();\n",
         "  values[segment][channel] = value;\n", "missing barrier between the segments' sums and their reading"),
        ("conv-merge-channels", "bool there = channel < p.channels;\n  double sum = 0, m2 = 0;",
         "bool there = true;\n  double sum = 0, m2 = 0;", "unmasked tail: channels after the last"),
        ("conv-sums-round", "tile < p.tiles; tile += kMergedSegments) {\n    const float* partial",
         "tile < kMergedSegments; tile += kMergedSegments) {\n    const float* partial",
         "tiles after the first round of segments are left out"),
        ("conv-sums-invstd", "sum_x * p.invstd[channel];", "sum_x;", "the second sum is not times invstd"),
        ("conv-splits-tail", "if (element < p.elements) {", "if (element <= p.elements) {",
         "`<=` for `<`: an element too many"),
        ("conv-splits-first", "for (int split = 0; split < p.splits; ++split) {",
         "for (int split = 1; split < p.splits; ++split) {", "off by one: the first split is left out"),
    ], target=CONV),
    *mutants("conv_merge.cu", MERGE, [
        ("conv-merge-rounded-mean", "mean = partial[0] + sum / count;", "mean = partial[0];",
         "tiles' means are left rounded"),
        ("conv-merge-rounded-m2", "partial[2 * p.channels] - sum * sum / count;", "partial[2 * p.channels];",
         "deviations from rounded means"),
    ], target=CONV_FLOAT32),
]  # fmt: skip

MUTANTS = [*EPILOGUE, *FPROP_RESULTS, *DGRAD_RESULTS, *WGRAD_RESULTS, *MERGES]
