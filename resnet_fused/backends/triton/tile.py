"""The tiles of a sweep (sweep.py) on the device. Offsets are 64 bits wide."""

import triton
import triton.language as tl


@triton.jit
def chunk_of(tiles):
    """This program's chunk, its first tile, and the one behind its last."""
    chunk = tl.program_id(0) // tiles.channels
    first = chunk * tiles.chunk
    return chunk, first, tl.minimum(first + tiles.chunk, tiles.all)


@triton.jit
def channels_of(tiles, BLOCK_C: tl.constexpr):
    """This program's channels, [BLOCK_C]."""
    return tl.program_id(0) % tiles.channels * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def tile_of(tile, channel, view, tiles, BLOCK_P: tl.constexpr):
    """Where the elements of a tile lie, and whether they exist: [BLOCK_P, BLOCK_C] both."""
    image, within = (tile // tiles.image).to(tl.int64), (tile % tiles.image).to(tl.int64)
    local = tl.arange(0, BLOCK_P)
    pixel = within * view.tile_pixels + local
    row = image * view.image_stride + pixel * view.pixel_stride
    offset = row[:, None] + (channel.to(tl.int64) * view.channel_stride)[None, :]
    # Two comparisons, each with a multiple of 16 where there are whole vectors, so that none is cut apart.
    inside = (local < view.tile_pixels) & (pixel < view.pixels)
    return offset, inside[:, None] & (channel < view.channels)[None, :]


@triton.jit
def pixels_before(tile, view, tiles):
    """Pixels in the tiles before this one, or these ones."""
    return (tile // tiles.image).to(tl.int64) * view.pixels + (tile % tiles.image).to(tl.int64) * view.tile_pixels
