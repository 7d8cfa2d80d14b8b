"""Epilogues: sums over the pixels of a tile, as partial results in memory, and the kernels that merge those.

Results are the same in every run: in what order the partial results are merged depends on their number alone.
"""

import triton
import triton.language as tl

from resnet_fused.backends.triton.launch import launch
from resnet_fused.backends.triton.sweep import ceil_div


@triton.jit
def store_moments(partials, row_tile, y, rows, channel, there, channels):
    """Of the columns of y [pixels, channels], over the rows that are there: partials [tiles][3][K].

    The mean, and the sums of the deviations from it and of their squares: sums of squares themselves would cancel. The
    sum of the deviations is what the mean's rounding leaves.
    """
    count = tl.sum(rows.to(tl.float32), axis=0)
    mean = tl.sum(tl.where(rows[:, None], y, 0.0), axis=0) / count
    deviation = tl.where(rows[:, None], y - mean[None, :], 0.0)
    partial = partials + row_tile.to(tl.int64) * 3 * channels + channel
    tl.store(partial, mean, mask=there)
    tl.store(partial + channels, tl.sum(deviation, axis=0), mask=there)
    tl.store(partial + 2 * channels, tl.sum(deviation * deviation, axis=0), mask=there)


@triton.jit
def store_sums(partials, row_tile, g, centred, channel, there, channels):
    """sum g and sum g * centred of the columns, where g is 0 in rows that are not there: partials [tiles][2][C]."""
    partial = partials + row_tile.to(tl.int64) * 2 * channels + channel
    tl.store(partial, tl.sum(g, axis=0), mask=there)
    tl.store(partial + channels, tl.sum(g * centred, axis=0), mask=there)


@triton.jit
def load_moments(partials, pivot, first, tiles, tile_pixels, pixels, channel, channels, BLOCK_TILES: tl.constexpr):
    """count, mean - pivot and M2 of BLOCK_TILES tiles, [tiles, channels] each; count is 0 of those not there."""
    tile = first + tl.arange(0, BLOCK_TILES).to(tl.int64)
    count = tl.maximum(tl.minimum(pixels - tile * tile_pixels, tile_pixels), 0).to(tl.float32)[:, None]
    inside = (tile < tiles)[:, None] & (channel < channels)[None, :]
    partial = partials + (tile * 3 * channels)[:, None] + channel[None, :]
    mean = tl.load(partial, mask=inside, other=0.0)
    sum_d = tl.load(partial + channels, mask=inside, other=0.0)
    sum_d2 = tl.load(partial + 2 * channels, mask=inside, other=0.0)
    rest = sum_d / tl.maximum(count, 1.0)
    return count, mean - pivot[None, :] + rest, sum_d2 - sum_d * rest


@triton.jit(do_not_specialize=["tiles", "tile_pixels", "pixels"])
def conv_statistics_kernel(partials, stats, tiles, tile_pixels, pixels, channels,
                           BLOCK_TILES: tl.constexpr, BLOCK_C: tl.constexpr):  # fmt: skip
    """stats [2][channels] = mean, M2 of all pixels, from store_moments of tiles of tile_pixels, the last of fewer.

    The merge of Chan, Golub and LeVeque (1979), of all tiles at once: the mean first, then squared deviations of the
    tiles' means from it. Relative to the first tile's mean, so that a large mean costs no digits.
    """
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = channel < channels
    pivot = tl.load(partials + channel, mask=there, other=0.0)
    total = tl.zeros([BLOCK_TILES, BLOCK_C], tl.float32)
    for first in range(0, tiles, BLOCK_TILES):
        count, mean, _ = load_moments(
            partials, pivot, first, tiles, tile_pixels, pixels, channel, channels, BLOCK_TILES
        )
        total += count * mean
    centre = tl.sum(total, axis=0) / pixels
    squares = tl.zeros([BLOCK_TILES, BLOCK_C], tl.float32)
    for first in range(0, tiles, BLOCK_TILES):
        count, mean, m2 = load_moments(
            partials, pivot, first, tiles, tile_pixels, pixels, channel, channels, BLOCK_TILES
        )
        deviation = mean - centre[None, :]
        squares += m2 + count * (deviation * deviation)
    tl.store(stats + channel, pivot + centre, mask=there)
    tl.store(stats + channels + channel, tl.sum(squares, axis=0), mask=there)


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
