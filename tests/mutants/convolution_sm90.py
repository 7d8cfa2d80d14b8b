"""Bugs in the convolutions' products by wgmma, and in what brings their operands."""

from .convolution import mutants
from .target import CONV_WGMMA

FPROP_SM90, DGRAD_SM90, WGRAD_SM90 = (("conv_fprop_sm90",), ("conv_dgrad_sm90",), ("conv_wgrad_sm90",))

MUTANTS = [
    *mutants("conv_product_sm90.cuh", FPROP_SM90, [
        ("wgmma-publish", "publish() const { fence_shared_for_async(); }", "publish() const {}",
         "missing fence: what threads formed is not there for the product"),
        ("wgmma-fence", "    hold_accumulators(c);\n    wgmma_fence();\n", "    hold_accumulators(c);\n",
         "missing fence between the accumulators' zeros and the product"),
        ("wgmma-commit", "    wgmma_commit();\n", "", "the products are in no group: nobody waits for them"),
        ("wgmma-wait", "    wgmma_wait<0>();\n", "", "missing wait: accumulators are read too early"),
        ("wgmma-wait-pending", "    wgmma_wait<0>();\n", "    wgmma_wait<1>();\n", "waits for one group too few"),
        ("wgmma-step-inner", "Layout::kInner ? 32 :", "Layout::kInner ? 16 :",
         "wrong distance between steps: half of one is multiplied twice"),
        ("wgmma-offset-inner", "return first * Layout::kRowPitch;", "return first / 2 * Layout::kRowPitch;",
         "the second warpgroup's rows begin within the first's"),
        ("wgmma-half-of-the-chunk", "k < TileShape::kRowBytes / 32; ++k", "k < TileShape::kRowBytes / 64; ++k",
         "half of each chunk is left out"),
        ("wgmma-store-rows", """\
make_float2(c[4 * j], c[4 * j + 1]);
      *reinterpret_cast<float2*>(at + 8 * j + 8 * pitch) = make_float2(c[4 * j + 2], c[4 * j + 3]);
""", """\
make_float2(c[4 * j + 2], c[4 * j + 3]);
      *reinterpret_cast<float2*>(at + 8 * j + 8 * pitch) = make_float2(c[4 * j], c[4 * j + 1]);
""", "the accumulators' halves in each other's rows"),
        ("wgmma-store-warps", "threadIdx.x % 128 / 32 * 16", "threadIdx.x % 128 / 32 * 8", "warps' rows overlap"),
    ], target=CONV_WGMMA),
    *mutants("conv_product_sm90.cuh", DGRAD_SM90, [
        ("wgmma-transposes", "mma<!LayoutA::kInner, !LayoutB::kInner>", "mma<!LayoutB::kInner, !LayoutA::kInner>",
         "the transposed operand is the other one"),
    ], target=CONV_WGMMA),
    *mutants("conv_product_sm90.cuh", WGRAD_SM90, [
        ("wgmma-step-outer", "16 * Layout::kRowPitch;", "8 * Layout::kRowPitch;",
         "wrong distance between steps: half of one is multiplied twice"),
        ("wgmma-offset-outer", "return first / 64 * Layout::kBlockBytes;", "return first / 64 * 128;",
         "the second warpgroup's columns begin within the first's"),
        ("wgmma-group-columns", "group / kGroupsM * kGroupN;", "0;",
         "both warpgroups multiply the same columns"),
    ], target=CONV_WGMMA),
    *mutants("conv_mainloop.cuh", DGRAD_SM90, [
        ("mainloop-finish", "    product.finish();\n", "",
         "missing wait: the next chunk overwrites what is multiplied"),
        ("mainloop-publish-late", "    product.publish();\n    __syncthreads();  // the current",
         "    __syncthreads();\n    product.publish();  // the current",
         "fence behind the barrier: other threads' writes are not there for the product"),
        ("mainloop-wait-wgmma", "    stages == 3 ? cp_async_wait<0>() : cp_async_wait<1>();",
         "    stages == 3 ? cp_async_wait<1>() : cp_async_wait<2>();", "waits for one group too few"),
    ], target=CONV_WGMMA),
    *mutants("arch/wgmma.cuh", FPROP_SM90, [
        ("descriptor-rows", "wgmma_descriptor(shared, 16, 512, 2)", "wgmma_descriptor(shared, 16, 256, 2)",
         "wrong distance between 8 rows and the next"),
        ("descriptor-swizzle", "wgmma_descriptor(shared, 16, 512, 2)", "wgmma_descriptor(shared, 16, 512, 1)",
         "the swizzle of rows of 128 bytes"),
    ], target=CONV_WGMMA),
    *mutants("arch/wgmma.cuh", WGRAD_SM90, [
        ("descriptor-distances", "wgmma_descriptor(shared, column_block_bytes, 1024, 1)",
         "wgmma_descriptor(shared, 1024, column_block_bytes, 1)", "leading and stride distance swapped"),
    ], target=CONV_WGMMA),
    *mutants("conv_tile.cuh", WGRAD_SM90, [
        ("tile-column-blocks", "piece / 8 * kBlockBytes", "piece / 8 * (kBlockBytes / 2)",
         "blocks of 64 columns overlap"),
    ], target=CONV_WGMMA),
    *mutants("conv_copies.cuh", FPROP_SM90, [
        ("copies-lag-wgmma", "copied >> Own::kCount * lag;", "copied >> Own::kCount * (lag - 1);",
         "wrong stage: what was copied one chunk later"),
    ], target=CONV_WGMMA),
    *mutants("arch/wgmma.cuh", FPROP_SM90, [
        ("descriptor-long-rows", "wgmma_descriptor(shared, 16, 1024, 1)", "wgmma_descriptor(shared, 16, 512, 1)",
         "the distance between 8 rows of 64 bytes"),
        ("descriptor-long-swizzle", "wgmma_descriptor(shared, 16, 1024, 1)", "wgmma_descriptor(shared, 16, 1024, 2)",
         "the swizzle of rows of 64 bytes"),
    ], target=CONV_WGMMA),
    *mutants("conv_chunks.cuh", FPROP_SM90, [
        ("chunks-taps", "pixels.rows[i] >> next.r & pixels.columns[i] >> next.s & 1",
         "pixels.rows[i] >> next.s & pixels.columns[i] >> next.r & 1", "rows and columns of taps mistaken"),
        ("chunks-tap-of-a-row", "if (next.c == 0) {", "if (next.c == 0 && next.s == 0) {",
         "all taps of a row have the halo of its first"),
        ("chunks-last-tap", "if (++s == steps.taps_s) {", "if (++s == steps.taps_s - 1) {",
         "off by one: a row of taps ends early"),
        ("chunks-padding-formed", "source.form_where(there >> k & 1,", "source.form_where(true,",
         "padding before the prologue: z(0), not 0"),
        ("chunks-lag", "copied >> Own::kCount * lag;", "copied >> Own::kCount * (lag - 1);",
         "wrong stage: what was copied one chunk later"),
        ("chunks-skip", "skip() { copied <<= Own::kCount; }", "skip() {}",
         "the last chunks take others' padding for theirs"),
        ("chunks-quarters", "int first = 4 * (i ^ begin);", "int first = 4 * i;",
         "all threads begin with the first quarter: right, but banks conflict"),
        ("chunks-form-channel", "form_channel == last_channel ? first_channel : form_channel + Layout::kTileK;",
         "first_channel;", "the prologue of a tap's first channels for all"),
        ("chunks-group", "first_channel(group * steps.channels + Own::column() * kPiece<T>),",
         "first_channel(Own::column() * kPiece<T>),", "the prologue of the first group"),
        ("chunks-filter-tail", "i * Own::kRowStep < count);", "true);",
         "unmasked tail: filters after the last are read"),
        ("chunks-filter-first-row", "count(count - Own::row(0)),", "count(count),",
         "unmasked tail: a thread's rows counted from the tile's first"),
    ], target=CONV_WGMMA),
    *mutants("conv_chunks.cuh", DGRAD_SM90, [
        ("chunks-filter-channels", "(i * Own::kRowStep), there);", "(i * Own::kRowStep), true);",
         "unmasked tail: channels after the last are read"),
        ("chunks-next-tap", "by += steps.next_s;", "by += steps.next_r;", "the next tap is the next row's"),
        ("chunks-next-row", "by += steps.next_r;", "by += 0;", "a row of taps follows the one before without a gap"),
    ], target=CONV_WGMMA),
    *mutants("conv_chunks.cuh", WGRAD_SM90, [
        ("chunks-rows-carry", "if (column >= end_column) {", "if (column > end_column) {",
         "off by one: a column too many"),
        ("chunks-rows-image", "by += by_image - rows * by_row;", "by -= rows * by_row;", "the next image is the same"),
        ("chunks-rows-end", "left -= TILE_K;", "left -= TILE_K / 2;", "unmasked tail: pixels after the last"),
        ("chunks-rows-linear", "copies.load(tile, i, i * Own::kRowStep * window.channels, meets);",
         "copies.load(tile, i, i * (Own::kRowStep / 2) * window.channels, meets);", "rows overlap"),
        ("chunks-rows-halo", "static_cast<unsigned>(column) < static_cast<unsigned>(window.width);",
         "column < window.width;", "what is left of the image is read"),
        ("chunks-rows-tap", "r = tap / window.taps[1], s", "r = tap / window.taps[0], s",
         "rows and columns of the filter mistaken"),
    ], target=CONV_WGMMA),
    *mutants("heuristics.h", ("conv_fprop", "conv_dgrad"), [
        ("plan-long-chunks-of-taps", "a == 1 && whole;", "a == 1;", "a chunk is of several taps"),
        ("plan-long-chunks-of-tensors", "a == 1 && whole;", "whole;", "draw's other tensors are left out"),
    ], target=CONV_WGMMA),
    *mutants("heuristics.h", ("conv_wgrad",), [
        ("plan-wgmma-vector", "== 2 && plan.vector &&", "== 2 &&", "pieces are copied although inputs are misaligned"),
    ], target=CONV_WGMMA),
]  # fmt: skip
