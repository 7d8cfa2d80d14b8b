"""A tile's part of a ReLU's mask (backends/relu_mask.py): bytes of eight channels or, else, of eight pixels."""

import triton
import triton.language as tl

from resnet_fused.backends.triton.tile import channels_of, tile_of


@triton.jit
def bytes_of(tile, view, OF_CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Where the bytes lie, and which of them there are."""
    if OF_CHANNELS:
        channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C // 8) * 8
        offset, there = tile_of(tile, channel, view, BLOCK_P)
    else:
        offset, there = tile_of(tile, channels_of(BLOCK_C), view, BLOCK_P, 8)
    return offset // 8, there


@triton.jit
def store_mask(mask, y, tile, view, OF_CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of y [BLOCK_P, BLOCK_C], as it is stored."""
    passes, bit = tl.where(y <= 0, 0, 1), tl.arange(0, 8)
    if OF_CHANNELS:
        byte = tl.sum(tl.reshape(passes, [BLOCK_P, BLOCK_C // 8, 8]) << bit[None, None, :], 2)
    else:
        byte = tl.sum(tl.reshape(passes, [BLOCK_P // 8, 8, BLOCK_C]) << bit[None, :, None], 1)
    offset, there = bytes_of(tile, view, OF_CHANNELS, BLOCK_P, BLOCK_C)
    tl.store(mask + offset, byte.to(tl.uint8), mask=there)


@triton.jit
def load_mask(mask, tile, view, OF_CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """1 where the ReLU passes, else 0: [BLOCK_P, BLOCK_C]."""
    offset, there = bytes_of(tile, view, OF_CHANNELS, BLOCK_P, BLOCK_C)
    byte, bit = tl.load(mask + offset, mask=there, other=0).to(tl.int32), tl.arange(0, 8)
    if OF_CHANNELS:
        bits = byte[:, :, None] >> bit[None, None, :]
    else:
        bits = byte[:, None, :] >> bit[None, :, None]
    return tl.reshape(bits & 1, [BLOCK_P, BLOCK_C])
