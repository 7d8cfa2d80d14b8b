"""The two passes of batch norm's backward. g is grad where the ReLU passes, that is where its output (or z, computed
again) is not <= 0.
    reduce: sum g, sum g * xhat, sum g * xhat2 per channel, in two stages
    apply:  draw = scale * (g - means[0] - xhat * means[1])
with xhat = (x - mean) * invstd: Ioffe and Szegedy 2015 (Batch normalization), section 3.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from resnet_fused.backends import relu_mask
from resnet_fused.backends.triton import dense
from resnet_fused.backends.triton.bn_statistics import MERGE_CHANNELS, MERGE_CHUNKS, part_of
from resnet_fused.backends.triton.element import apply_affine, load_affine, load_row, to_acc, zero_up_to_zero
from resnet_fused.backends.triton.launch import launch
from resnet_fused.backends.triton.relu_mask import load_mask
from resnet_fused.backends.triton.sweep import ceil_div, sweep_of
from resnet_fused.backends.triton.tile import channels_of, tile_of, tiles_of


@triton.jit
def store_sums(sums, partial, rows: tl.constexpr, row: tl.constexpr, channel, channels):
    """One row of this program's partial sums, [chunks][rows][channels]."""
    to = partial + (tl.program_id(0).to(tl.int64) * rows + row) * channels + channel
    tl.store(to, tl.sum(sums, 0).to(tl.float64), mask=channel < channels)


@triton.jit
def bn_backward_reduce_kernel(
    grad, out, x, affine, x2, affine2, mask, masked, partial, view,
    RELU: tl.constexpr, OF_CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """With RELU g is masked by out's mask, by out, or without them by z(x); `masked` receives g if it is given."""
    ROWS: tl.constexpr = 3 if x2 is not None else 2 if x is not None else 1
    first, end = tiles_of(view)
    channel = channels_of(BLOCK_C)
    acc: tl.constexpr = tl.float64 if grad.dtype.element_ty == tl.float64 else tl.float32
    sums = tl.zeros([BLOCK_P, BLOCK_C], acc)
    if x is not None:
        z = load_affine(affine, channel, view.channels)
        products = tl.zeros([BLOCK_P, BLOCK_C], acc)
    if x2 is not None:
        mean2 = load_row(affine2, 0, channel, view.channels)
        products2 = tl.zeros([BLOCK_P, BLOCK_C], acc)
    for tile in range(first, end):
        offset, there = tile_of(tile, channel, view, BLOCK_P)
        g = to_acc(tl.load(grad + offset, mask=there, other=0))
        if x is not None:
            value = to_acc(tl.load(x + offset, mask=there, other=0))
        if mask is not None:
            g = tl.where(load_mask(mask, tile, view, OF_CHANNELS, BLOCK_P, BLOCK_C) == 0, 0, g)
        elif RELU and out is not None:
            g = zero_up_to_zero(to_acc(tl.load(out + offset, mask=there, other=0)), g)
        elif RELU:
            g = zero_up_to_zero(apply_affine(value, z), g)
        if masked is not None:
            tl.store(masked + offset, g.to(masked.dtype.element_ty), mask=there)
        sums += g
        if x is not None:
            products = tl.fma(g, value - z[0], products)
        if x2 is not None:
            value2 = to_acc(tl.load(x2 + offset, mask=there, other=0))
            products2 = tl.fma(g, value2 - mean2, products2)
    store_sums(sums, partial, ROWS, 0, channel, view.channels)
    if x is not None:
        store_sums(products, partial, ROWS, 1, channel, view.channels)
    if x2 is not None:
        store_sums(products2, partial, ROWS, 2, channel, view.channels)


@triton.jit(do_not_specialize=["chunks"])
def merge_sums_kernel(
    partial, affine, affine2, sums, channels, chunks,
    ROWS: tl.constexpr, BLOCK_CHUNKS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sums over the chunks; the second and third row, of g * (x - mean), become those of g * xhat."""
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    for row in tl.static_range(ROWS):
        total = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
        for first in range(0, chunks, BLOCK_CHUNKS):
            _, offset, there = part_of(first, chunks, ROWS, channel, channels, BLOCK_CHUNKS)
            total += tl.load(partial + row * channels + offset, mask=there, other=0)
        result = tl.sum(total, 0)
        if row == 1:
            result *= tl.load(affine + 3 * channels + channel, mask=inside).to(tl.float64)
        if row == 2:
            result *= tl.load(affine2 + 3 * channels + channel, mask=inside).to(tl.float64)
        tl.store(sums + row * channels + channel, result.to(sums.dtype.element_ty), mask=inside)


@triton.jit
def load_draw(affine, means, channel, channels):
    """Of the gradient of a batch norm's input: its affine, means[0], and slope = invstd * means[1]."""
    slope = load_row(affine, 3, channel, channels) * load_row(means, 1, channel, channels)
    return load_affine(affine, channel, channels), load_row(means, 0, channel, channels), slope


@triton.jit
def apply_draw(g, x, draw):
    """scale * (g - mean_g - slope * (x - mean))"""
    affine, mean_g, slope = draw
    return affine[1] * tl.fma(-slope, x - affine[0], g - mean_g)


@triton.jit
def bn_backward_apply_kernel(
    grad, out, x, affine, means, y, view,
    RELU: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    first, end = tiles_of(view)
    channel = channels_of(BLOCK_C)
    draw = load_draw(affine, means, channel, view.channels)
    for tile in range(first, end):
        offset, there = tile_of(tile, channel, view, BLOCK_P)
        g, value = to_acc(tl.load(grad + offset, mask=there)), to_acc(tl.load(x + offset, mask=there))
        if RELU and out is not None:
            g = zero_up_to_zero(to_acc(tl.load(out + offset, mask=there)), g)
        elif RELU:
            g = zero_up_to_zero(apply_affine(value, draw[0]), g)
        tl.store(y + offset, apply_draw(g, value, draw).to(y.dtype.element_ty), mask=there)


def merge_sums(partial, affine, affine2, like):
    """acc [rows, C] from partial sums [chunks, rows, C]."""
    chunks, rows, C = partial.shape
    sums = dense.empty_acc(like, rows, C)
    launch(
        merge_sums_kernel, (ceil_div(C, MERGE_CHANNELS),), partial, affine, affine2, sums, C, chunks,
        ROWS=rows, BLOCK_CHUNKS=MERGE_CHUNKS, BLOCK_C=MERGE_CHANNELS, num_warps=4,
    )  # fmt: skip
    return sums


def _check(grad, out, x, affine, relu, x2, affine2):
    dense.check_activation(grad)
    dense.check_same(out, grad, "out")
    dense.check_same(x, grad, "x")
    dense.check_same(x2, grad, "x2")
    if x is None and ((relu and out is None) or x2 is not None):
        raise RuntimeError("expected x to be given" + (" with x2" if x2 is not None else " or out, with relu"))
    for t, rows, name in ((x, affine, "affine"), (x2, affine2, "affine2")):
        if t is not None:
            dense.check_rows(rows, 4, grad, name)


def _reduce(grad, out, x, affine, relu, x2, affine2, mask, masked, memory_format):
    _check(grad, out, x, affine, relu, x2, affine2)
    dense.check_mask(mask, grad, "mask")
    rows, C = 1 + (x is not None) + (x2 is not None), grad.shape[1]
    if not grad.numel():
        return dense.empty_acc(grad, rows, C).zero_()
    grad, x, x2 = (dense.dense(t, memory_format) for t in (grad, x, x2))
    like = grad if x is None else x  # strides of sizes 1 are anything: x's alone said which memory format
    mask, of_channels = dense.dense_mask(mask, like), relu_mask.of_channels(like)
    out = dense.dense(out, memory_format) if relu and mask is None else None
    affine, affine2 = dense.dense(affine), dense.dense(affine2)
    sweep = sweep_of(grad)
    partial = grad.new_empty(sweep.chunks, rows, C, dtype=torch.float64)
    launch(
        bn_backward_reduce_kernel, sweep.grid, grad, out, x, affine, x2, affine2, mask, masked, partial,
        sweep.view, RELU=relu, OF_CHANNELS=of_channels, **sweep.blocks,
    )  # fmt: skip
    return merge_sums(partial, affine, affine2, grad)


def bn_backward_reduce(grad, out, x, affine, relu, x2=None, affine2=None):
    """sums, acc [1..3, C]: sum g, and with x, x2: sum g·x̂ of each. With relu g is grad where not (out <= 0), or without
    out where not (z(x) <= 0); else grad."""
    memory_format = dense.format_of(grad if x is None else x)
    return _reduce(grad, out, x, affine, relu, x2, affine2, None, None, memory_format)


def bn_backward_mask_reduce(grad, out, x, affine, x2=None, affine2=None, mask=None):
    """g = grad where not (out <= 0), in x's memory format, and bn_backward_reduce's sums of it. out's mask in the order of
    x is read in its place, so that out need not be given then."""
    memory_format = dense.format_of(x)
    if out is None and not relu_mask.fits(mask, x):
        raise RuntimeError("expected out or its mask in the order of x to be given")
    g = dense.empty(grad, memory_format)
    return g, _reduce(grad, out, x, affine, True, x2, affine2, mask, g, memory_format)


def bn_backward_apply(grad, out, x, affine, relu, means):
    """scale·(g − means[0] − x̂·means[1]), like x."""
    return bn_backward_apply_into(dense.empty(x, dense.format_of(x)), grad, out, x, affine, relu, means)


def bn_backward_apply_into(y, grad, out, x, affine, relu, means):
    """The same, written to a dense tensor, which may be an input."""
    _check(grad, out, x, affine, relu, None, None)
    dense.check_rows(means, 2, x, "means")
    if y.numel():
        memory_format = dense.format_of(y)
        sweep = sweep_of(y)
        launch(
            bn_backward_apply_kernel, sweep.grid, dense.dense(grad, memory_format),
            dense.dense(out, memory_format) if relu else None, dense.dense(x, memory_format),
            dense.dense(affine), dense.dense(means), y, sweep.view, RELU=relu, **sweep.blocks,
        )  # fmt: skip
    return y
