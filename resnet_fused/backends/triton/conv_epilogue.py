"""Epilogues: sums over the pixels of a tile, as partial results in memory, and the kernels that merge those.

Results are the same in every run: in what order the partial results are merged depends on their number alone.
"""

import triton
import triton.language as tl

from resnet_fused.backends.triton.sweep import ceil_div
from resnet_fused.backends.triton.launch import launch


@triton.jit
def store_moments(partials, row_tile, y, rows, channel, there, channels):
    """(mean, M2) of the columns of y [pixels, channels] over the rows that are there: partials [tiles][2][K]."""
    count = tl.sum(rows.to(tl.float32), axis=0)
    mean = tl.sum(tl.where(rows[:, None], y, 0.0), axis=0) / count
    deviation = tl.where(rows[:, None], y - mean[None, :], 0.0)
    m2 = tl.sum(deviation * deviation, axis=0)
    partial = partials + row_tile.to(tl.int64) * 2 * channels + channel
    tl.store(partial, mean, mask=there)
    tl.store(partial + channels, m2, mask=there)


@triton.jit
def store_sums(partials, row_tile, g, centred, channel, there, channels):
    """sum g and sum g * centred of the columns, where g is 0 in rows that are not there: partials [tiles][2][C]."""
    partial = partials + row_tile.to(tl.int64) * 2 * channels + channel
    tl.store(partial, tl.sum(g, axis=0), mask=there)
    tl.store(partial + channels, tl.sum(g * centred, axis=0), mask=there)


@triton.jit
def merge_moments(count_a, mean_a, m2_a, count_b, mean_b, m2_b):
    """(count, mean, M2) of the union of two sets. Chan, Golub and LeVeque 1979, equation 2.1."""
    count = count_a + count_b
    of_b = count_b / tl.maximum(count, 1.0)
    delta = mean_b - mean_a
    return count, mean_a + delta * of_b, m2_a + m2_b + delta * delta * count_a * of_b


@triton.jit(do_not_specialize=["tiles", "tile_pixels", "pixels"])
def conv_statistics_kernel(partials, stats, tiles, tile_pixels, pixels, channels,
                           BLOCK_TILES: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """stats [2][channels] = mean, M2 of all pixels, from store_moments of tiles of tile_pixels, the last of fewer."""
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = channel < channels
    count = tl.zeros([BLOCK_TILES, BLOCK_C], tl.float32)
    mean = tl.zeros([BLOCK_TILES, BLOCK_C], tl.float32)
    m2 = tl.zeros([BLOCK_TILES, BLOCK_C], tl.float32)
    for first in range(0, tiles, BLOCK_TILES):
        tile = first + tl.arange(0, BLOCK_TILES)
        mask = (tile < tiles)[:, None] & there[None, :]
        partial = partials + (tile.to(tl.int64) * 2 * channels)[:, None] + channel[None, :]
        of_tile = tl.minimum(pixels - tile.to(tl.int64) * tile_pixels, tile_pixels)
        count_b = tl.where(mask, of_tile.to(tl.float32)[:, None], 0.0)
        mean_b = tl.load(partial, mask=mask, other=0.0)
        m2_b = tl.load(partial + channels, mask=mask, other=0.0)
        count, mean, m2 = merge_moments(count, mean, m2, count_b, mean_b, m2_b)
    count, mean, m2 = tl.reduce((count, mean, m2), 0, merge_moments)
    tl.store(stats + channel, mean, mask=there)
    tl.store(stats + channels + channel, m2, mask=there)


@triton.jit(do_not_specialize=["tiles"])
def conv_sums_kernel(partials, affine, sums, tiles, channels, BLOCK_TILES: tl.constexpr, BLOCK_C: tl.constexpr):
    """sums [2][channels] = sum g, sum g * xhat, from store_sums of all tiles."""
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = channel < channels
    sum_g = tl.zeros([BLOCK_TILES, BLOCK_C], tl.float32)
    sum_gx = tl.zeros([BLOCK_TILES, BLOCK_C], tl.float32)
    for first in range(0, tiles, BLOCK_TILES):
        tile = first + tl.arange(0, BLOCK_TILES)
        mask = (tile < tiles)[:, None] & there[None, :]
        partial = partials + (tile.to(tl.int64) * 2 * channels)[:, None] + channel[None, :]
        sum_g += tl.load(partial, mask=mask, other=0.0)
        sum_gx += tl.load(partial + channels, mask=mask, other=0.0)
    invstd = tl.load(affine + 3 * channels + channel, mask=there, other=0.0)
    tl.store(sums + channel, tl.sum(sum_g, axis=0), mask=there)
    tl.store(sums + channels + channel, tl.sum(sum_gx, axis=0) * invstd, mask=there)


@triton.jit(do_not_specialize=["splits", "elements"])
def conv_splits_kernel(partials, dw, splits, elements, BLOCK_SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """dw = the sum of partials [splits][elements], in float32, rounded once."""
    element = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = element < elements
    total = tl.zeros([BLOCK_SPLITS, BLOCK], tl.float32)
    for first in range(0, splits, BLOCK_SPLITS):
        split = first + tl.arange(0, BLOCK_SPLITS).to(tl.int64)
        offset = (split * elements)[:, None] + element[None, :]
        total += tl.load(partials + offset, mask=(split < splits)[:, None] & there[None, :], other=0.0)
    tl.store(dw + element, tl.sum(total, axis=0).to(dw.dtype.element_ty), mask=there)


# Wide over tiles and splits, narrow over channels: there are few channels, and programs enough have to be at work.
OF_CHANNELS = {"BLOCK_TILES": 512, "BLOCK_C": 8, "num_warps": 8}
OF_SPLITS = {"BLOCK_SPLITS": 32, "BLOCK": 64}


def launch_conv_statistics(partials, stats, tile_pixels, pixels):
    tiles, _, channels = partials.shape
    grid = (ceil_div(channels, OF_CHANNELS["BLOCK_C"]),)
    launch(conv_statistics_kernel, grid, partials, stats, tiles, tile_pixels, pixels, channels, **OF_CHANNELS)


def launch_conv_sums(partials, affine, sums):
    tiles, _, channels = partials.shape
    grid = (ceil_div(channels, OF_CHANNELS["BLOCK_C"]),)
    launch(conv_sums_kernel, grid, partials, affine, sums, tiles, channels, **OF_CHANNELS)


def launch_conv_splits(partials, dw):
    splits, elements = partials.shape
    grid = (ceil_div(elements, OF_SPLITS["BLOCK"]),)
    launch(conv_splits_kernel, grid, partials, dw, splits, elements, **OF_SPLITS)
