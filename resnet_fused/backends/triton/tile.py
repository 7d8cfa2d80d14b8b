"""The tiles of a sweep (sweep.py) on the device. Offsets are 64 bits wide."""

import triton
import triton.language as tl


@triton.jit
def first_tile(chunk, chunks, view):
    """Of a chunk, or of several [n]: they share the tiles of all images, as evenly as whole tiles can be."""
    tiles = tl.cdiv(view.pixels, view.tile_pixels) * view.images
    return tl.minimum(chunk * tl.cdiv(tiles, chunks), tiles)


@triton.jit
def tiles_of(view):
    """This program's first tile, and the one behind its last."""
    chunk, chunks = tl.program_id(0), tl.num_programs(0)
    return first_tile(chunk, chunks, view), first_tile(chunk + 1, chunks, view)


@triton.jit
def channels_of(BLOCK_C: tl.constexpr):
    """This program's channels, [BLOCK_C]."""
    return tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def image_of(tile, view):
    """The image that a tile is of, and its first pixel there."""
    image_tiles = tl.cdiv(view.pixels, view.tile_pixels)
    return (tile // image_tiles).to(tl.int64), (tile % image_tiles).to(tl.int64) * view.tile_pixels


@triton.jit
def tile_of(tile, channel, view, BLOCK_P: tl.constexpr, STEP: tl.constexpr = 1):
    """Where a tile's elements lie, of every STEP-th pixel, and which of them there are: [BLOCK_P / STEP, BLOCK_C] both."""
    image, first = image_of(tile, view)
    local = tl.arange(0, BLOCK_P // STEP) * STEP
    row = image * view.image_stride + (first + local) * view.pixel_stride
    offset = row[:, None] + (channel.to(tl.int64) * view.channel_stride)[None, :]
    # Two comparisons, each with a multiple of 16 where there are whole vectors, so that none is cut apart.
    inside = (local < view.tile_pixels) & (first + local < view.pixels)
    return offset, inside[:, None] & (channel < view.channels)[None, :]


@triton.jit
def pixels_before(tile, view):
    """Of all images, in the tiles before this one, or before these."""
    image, first = image_of(tile, view)
    return image * view.pixels + first
