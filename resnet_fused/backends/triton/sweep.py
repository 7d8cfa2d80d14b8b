"""How the programs of a grid share out a dense tensor: tiles of BLOCK_P pixels by BLOCK_C channels.

A kernel is the same for both memory formats. Contiguous, a tile's pixels follow each other in memory, and are of one
image. Channels last, its channels do, and the pixels of the whole batch are those of one large image. Triton sees which
stride is 1, and lays a warp's threads along it. These are pure functions of the shape; tile.py is the device's side.
"""

from __future__ import annotations

from typing import NamedTuple

WARP = 32
WARPS = 8  # of a program; two of them fit a multiprocessor, and ptxas need not spill to make it more
REGISTERS = 65536 // (2 * WARPS * WARP)
THREAD_BYTES = 32  # a thread's share of a tile in the accumulation dtype: 8 elements, which are 16 bytes of float16
MOST_CHANNELS = 64  # of a tile, channels last: 128 bytes of a 16-bit type are whole cache lines
FEWEST_CHANNELS = 16
FEWEST_PIXELS = 64
ALIGNMENT = 16  # elements: Triton knows of an argument whether it is a multiple of that

# Programs enough to fill the largest GPUs twice (132 multiprocessors with four programs each), unless one of them would
# take more tiles than keep the rounding of its sums small.
ENOUGH_PROGRAMS = 1056
MOST_TILES = 64


class View(NamedTuple):
    """A dense tensor and its tiles, as kernels take it; strides in elements."""

    images: int
    channels: int
    pixels: int  # of an image
    image_stride: int
    channel_stride: int
    pixel_stride: int
    tile_pixels: int  # of a tile: at most BLOCK_P, and a multiple of ALIGNMENT


class Sweep(NamedTuple):
    view: View
    chunks: int  # of tiles, for one program each: by the tiles next to each other on the grid's second axis
    across: int
    block_p: int
    block_c: int

    @property
    def grid(self) -> tuple[int, int]:
        return self.chunks, self.across

    @property
    def blocks(self) -> dict[str, int]:
        """As kernels and launches take them."""
        return {"BLOCK_P": self.block_p, "BLOCK_C": self.block_c, "num_warps": WARPS, "maxnreg": REGISTERS}


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def power_of_two(n: int, least: int, most: int) -> int:
    """The smallest that is not below n, within bounds."""
    return min(max(1 << (n - 1).bit_length(), least), most)


def plan_sweep(
    images: int, channels: int, pixels: int, channels_last: bool, acc_bytes: int, join=True, thread_bytes=THREAD_BYTES
) -> Sweep:
    """For a tensor [images, channels, pixels]; with `join` the images of one that is channels last are one image."""
    elements = WARPS * WARP * thread_bytes // acc_bytes
    if channels_last:
        if join:
            images, pixels = 1, images * pixels
        strides = (0 if images == 1 else channels * pixels, 1, channels)
        block_c = power_of_two(channels, FEWEST_CHANNELS, MOST_CHANNELS)
        block_p = elements // block_c
    else:
        strides = (channels * pixels, pixels, 1)
        block_p = power_of_two(pixels, FEWEST_PIXELS, elements)
        block_c = elements // block_p
    # Cut evenly: a program's first tile is the measure of its sums (bn_statistics.py) and should not be its smallest.
    tile_pixels = ceil_div(ceil_div(pixels, ceil_div(pixels, block_p)), ALIGNMENT) * ALIGNMENT
    tiles, across = images * ceil_div(pixels, tile_pixels), ceil_div(channels, block_c)
    chunk = min(max(tiles * across // ENOUGH_PROGRAMS, 1), MOST_TILES)
    return Sweep(
        View(images, channels, pixels, *strides, tile_pixels), ceil_div(tiles, chunk), across, block_p, block_c
    )


def sweep_of(x) -> Sweep:
    """For a dense tensor [N, C, H, W]."""
    N, C, H, W = x.shape
    # One pixel or one channel is the same memory in both formats; take the longer run.
    channels_last = not x.is_contiguous() if min(C, H * W) > 1 else C > 1
    return plan_sweep(N, C, H * W, channels_last, max(x.element_size(), 4))
