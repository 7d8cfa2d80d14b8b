"""A ReLU's mask as bits, uint8: set where its output is not <= 0, so that NaN passes as in eager's gradient.

A byte holds eight neighbours of an activation [N, C, H, W], the first in bit 0: channels if it is channels last, and
the mask is [N, C/8, H, W], channels last too; else pixels, [N, C, H*W/8]. Either way the bits lie in the order of its
elements in memory. Where the eights are not whole there is no mask: [0].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

BITS = 8


def of_channels(x: Tensor) -> bool:
    """One pixel or one channel is the same memory in both formats; taken is the longer run, as by the kernels."""
    _, C, H, W = x.shape
    if H * W == 1:
        return True
    return C != 1 and suggest_memory_format(x) == torch.channels_last


def size_of_channels(x: Tensor) -> tuple[int, ...]:
    N, C, H, W = x.shape
    return (N, C // BITS, H, W) if C % BITS == 0 else (0,)


def size_of_pixels(x: Tensor) -> tuple[int, ...]:
    N, C, H, W = x.shape
    return (N, C, H * W // BITS) if H * W % BITS == 0 else (0,)


def size_of(x: Tensor) -> tuple[int, ...]:
    """In the order of x's elements."""
    return size_of_channels(x) if of_channels(x) else size_of_pixels(x)


def empty(x: Tensor) -> Tensor:
    """Uninitialised, for a dense x."""
    size = size_of(x)
    order = torch.channels_last if len(size) == 4 else torch.contiguous_format
    return torch.empty(size, dtype=torch.uint8, device=x.device, memory_format=order)


def fits(mask: Tensor | None, x: Tensor) -> bool:
    """Whether there is a mask, and its bits lie in the order of x's elements."""
    return mask is not None and mask.dim() != 1 and (mask.dim() == 4) == of_channels(x)


def pack(y: Tensor) -> Tensor:
    """The mask of a ReLU's output."""
    size = size_of(y)
    if len(size) == 1:
        return empty(y)
    passes = ~(y <= 0)
    passes = passes.movedim(1, -1) if len(size) == 4 else passes.flatten(2)
    bits = torch.tensor([1 << k for k in range(BITS)], dtype=torch.uint8, device=y.device)
    mask = (passes.unflatten(-1, (-1, BITS)) * bits).sum(-1, dtype=torch.uint8).contiguous()
    return mask.movedim(-1, 1) if len(size) == 4 else mask


def unpack(mask: Tensor, size) -> Tensor:
    """Booleans of the given size, of a mask in whichever order."""
    bits = torch.arange(BITS, dtype=torch.uint8, device=mask.device)
    passes = (mask.unsqueeze(-1) >> bits & 1).bool()
    return (passes.movedim(-1, 2) if mask.dim() == 4 else passes).reshape(size)
