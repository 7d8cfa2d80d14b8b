"""Mean and M2 = sum (x - mean)^2 per channel, in two stages: every program those of its tiles, then one program per
few channels those of all. A program's sums are of x - pivot and its square, with its first tile's mean as the pivot, so
that nothing cancels: that tile is one of at most T about as large ones, so (pivot - mean)^2 is below T times the
variance. Parts are merged as by Chan, Golub and LeVeque 1979 (Updating formulae and a pairwise algorithm for computing sample
variances), formula 1.5, for all parts at once, in float64.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from resnet_fused.backends.triton import dense
from resnet_fused.backends.triton.element import to_acc
from resnet_fused.backends.triton.launch import launch
from resnet_fused.backends.triton.sweep import ceil_div, sweep_of
from resnet_fused.backends.triton.tile import channels_of, first_tile, pixels_before, tile_of, tiles_of

MERGE_CHANNELS = 16  # of a program of the second stage,
MERGE_CHUNKS = 64  # which takes so many parts at a time
FINALIZE_CHANNELS = 256


@triton.jit
def bn_statistics_kernel(x, partial, view, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    first, end = tiles_of(view)
    channel = channels_of(BLOCK_C)
    offset, there = tile_of(first, channel, view, BLOCK_P)
    values = to_acc(tl.load(x + offset, mask=there, other=0))
    count = pixels_before(first + 1, view) - pixels_before(first, view)
    pivot = tl.sum(values, 0) / count.to(values.dtype)
    pivot = tl.where(pivot - pivot == 0, pivot, 0)  # not of infinities
    sums = tl.zeros([BLOCK_P, BLOCK_C], values.dtype)
    squares = tl.zeros([BLOCK_P, BLOCK_C], values.dtype)
    for tile in range(first, end):
        offset, there = tile_of(tile, channel, view, BLOCK_P)
        d = tl.where(there, to_acc(tl.load(x + offset, mask=there)) - pivot[None, :], 0)
        sums += d
        squares = tl.fma(d, d, squares)
    n = pixels_of_chunk(tl.program_id(0), tl.num_programs(0), view)
    total = tl.sum(sums, 0).to(tl.float64)
    mean = total / n
    m2 = tl.sum(squares, 0).to(tl.float64) - total * mean
    row = partial + tl.program_id(0).to(tl.int64) * 2 * view.channels + channel
    tl.store(row, pivot.to(tl.float64) + mean, mask=channel < view.channels)
    tl.store(row + view.channels, tl.where(m2 <= 0, 0, m2), mask=channel < view.channels)


@triton.jit
def part_of(first, chunks, rows, channel, channels, BLOCK_CHUNKS: tl.constexpr):
    """Of partial results [chunks][rows][channels], the chunks [BLOCK_CHUNKS] from `first` on; where they lie and which
    of them there are, [BLOCK_CHUNKS, BLOCK_C]."""
    chunk = first + tl.arange(0, BLOCK_CHUNKS)
    offset = (chunk.to(tl.int64) * rows * channels)[:, None] + channel[None, :]
    return chunk, offset, (chunk < chunks)[:, None] & (channel < channels)[None, :]


@triton.jit
def pixels_of_chunk(chunk, chunks, view):
    """As float64."""
    end = pixels_before(first_tile(chunk + 1, chunks, view), view)
    return (end - pixels_before(first_tile(chunk, chunks, view), view)).to(tl.float64)


@triton.jit(do_not_specialize=["chunks"])
def merge_statistics_kernel(partial, stats, view, chunks, BLOCK_CHUNKS: tl.constexpr, BLOCK_C: tl.constexpr):
    """mean = sum n_i mean_i / n, M2 = sum (M2_i + n_i (mean_i - mean)^2)"""
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < view.channels
    n = pixels_before(first_tile(chunks, chunks, view), view).to(tl.float64)
    weighted = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
    for first in range(0, chunks, BLOCK_CHUNKS):
        chunk, offset, there = part_of(first, chunks, 2, channel, view.channels, BLOCK_CHUNKS)
        share = pixels_of_chunk(chunk, chunks, view)[:, None] / n
        weighted += share * tl.load(partial + offset, mask=there, other=0)
    mean = tl.sum(weighted, 0)
    m2 = tl.zeros([BLOCK_CHUNKS, BLOCK_C], tl.float64)
    for first in range(0, chunks, BLOCK_CHUNKS):
        chunk, offset, there = part_of(first, chunks, 2, channel, view.channels, BLOCK_CHUNKS)
        count = pixels_of_chunk(chunk, chunks, view)[:, None]
        delta = tl.load(partial + offset, mask=there, other=0) - mean[None, :]
        m2_i = tl.load(partial + offset + view.channels, mask=there, other=0)
        m2 += m2_i + tl.where(there, count * delta * delta, 0)
    acc: tl.constexpr = stats.dtype.element_ty
    tl.store(stats + channel, mean.to(acc), mask=inside)
    tl.store(stats + view.channels + channel, tl.sum(m2, 0).to(acc), mask=inside)


@triton.jit
def bn_finalize_kernel(
    stats, weight, bias, affine, channels, count: tl.float64, eps: tl.float64, BLOCK_C: tl.constexpr
):  # fmt: skip
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = c < channels
    acc: tl.constexpr = affine.dtype.element_ty
    mean, m2 = tl.load(stats + c, mask=inside), tl.load(stats + channels + c, mask=inside)
    invstd = 1 / tl.sqrt(m2.to(tl.float64) / count + eps)
    scale = invstd
    if weight is not None:
        scale *= tl.load(weight + c, mask=inside).to(tl.float64)
    shift = tl.zeros([BLOCK_C], acc)
    if bias is not None:
        shift = tl.load(bias + c, mask=inside).to(acc)
    tl.store(affine + c, mean, mask=inside)
    tl.store(affine + channels + c, scale.to(acc), mask=inside)
    tl.store(affine + 2 * channels + c, shift, mask=inside)
    tl.store(affine + 3 * channels + c, invstd.to(acc), mask=inside)


def bn_statistics(x):
    """stats, acc [2, C]: mean and sum (x - mean)^2 over N, H, W."""
    dense.check_activation(x)
    x, C = dense.dense(x, dense.format_of(x)), x.shape[1]
    stats = dense.empty_acc(x, 2, C)
    if not x.numel():
        return stats.zero_()
    sweep = sweep_of(x)
    partial = x.new_empty(sweep.chunks, 2, C, dtype=torch.float64)
    launch(bn_statistics_kernel, sweep.grid, x, partial, sweep.view, **sweep.blocks)
    launch(
        merge_statistics_kernel, (ceil_div(C, MERGE_CHANNELS),), partial, stats, sweep.view, sweep.chunks,
        BLOCK_CHUNKS=MERGE_CHUNKS, BLOCK_C=MERGE_CHANNELS, num_warps=4,
    )  # fmt: skip
    return stats


def bn_finalize(stats, count, weight, bias, eps):
    """affine, acc [4, C]: invstd = 1/sqrt(M2/count + eps), scale = weight·invstd, shift = bias."""
    C = stats.shape[1]
    affine = stats.new_empty(4, C)
    if C:
        launch(
            bn_finalize_kernel, (ceil_div(C, FINALIZE_CHANNELS),), dense.dense(stats), dense.dense(weight),
            dense.dense(bias), affine, C, float(count), float(eps), BLOCK_C=FINALIZE_CHANNELS, num_warps=4,
        )  # fmt: skip
    return affine
