"""Tensors as the kernels want them: dense, in one of two memory formats, of the right sizes and dtypes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format as format_of

from resnet_fused.backends import relu_mask

__all__ = ["acc_dtype", "check_activation", "check_mask", "check_rows", "check_same", "dense", "dense_mask", "empty", "empty_acc", "format_of"]


def acc_dtype(x: Tensor) -> torch.dtype:
    """Of sums and per-channel arrays."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def empty(x: Tensor, memory_format: torch.memory_format, size=None, dtype=None) -> Tensor:
    return torch.empty(
        x.shape if size is None else size, dtype=dtype or x.dtype, device=x.device, memory_format=memory_format
    )


def empty_acc(x: Tensor, *size: int) -> Tensor:
    return x.new_empty(size, dtype=acc_dtype(x))


def dense(x: Tensor | None, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor | None:
    """Itself where it is that already."""
    return None if x is None else x.contiguous(memory_format=memory_format)


def check_activation(x: Tensor) -> None:
    if x.dim() != 4:
        raise ValueError(f"expected 4D input (got {x.dim()}D input)")


def _check_device(t: Tensor, like: Tensor, name: str) -> None:
    if t.device != like.device:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} is on {t.device}, different from other tensors "
            f"on {like.device}"
        )


def check_same(t: Tensor | None, like: Tensor, name: str) -> None:
    """A tensor that goes with `like` elementwise, if it is given."""
    if t is None:
        return
    _check_device(t, like, name)
    if t.shape != like.shape:
        raise RuntimeError(f"{name} should have size {list(like.shape)}, but got {list(t.shape)}")
    if t.dtype != like.dtype:
        raise RuntimeError(f"expected {name} to have dtype {like.dtype}, but got {t.dtype}")


def dense_mask(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """A mask whose bits are in the order of a dense x; one of another order counts as not given."""
    if not relu_mask.fits(mask, x):
        return None
    return dense(mask, torch.channels_last if mask.dim() == 4 else torch.contiguous_format)


def check_mask(t: Tensor | None, like: Tensor, name: str) -> None:
    """A mask of `like` in either order, or [0], which is none; if it is given."""
    if t is None:
        return
    _check_device(t, like, name)
    if t.dtype != torch.uint8:
        raise RuntimeError(f"expected {name} to have dtype {torch.uint8}, but got {t.dtype}")
    if t.shape not in ((0,), relu_mask.size_of_channels(like), relu_mask.size_of_pixels(like)):
        raise RuntimeError(f"{name} should have a bit for each element of {list(like.shape)}, but has size {list(t.shape)}")


def check_rows(t: Tensor | None, rows: int, x: Tensor, name: str) -> None:
    """A per-channel array [rows, C] in the accumulation dtype."""
    if t is None:
        raise RuntimeError(f"expected {name} to be given")
    _check_device(t, x, name)
    if t.shape != (rows, x.shape[1]):
        raise RuntimeError(f"{name} should have size {[rows, x.shape[1]]}, but got {list(t.shape)}")
    if t.dtype != acc_dtype(x):
        raise RuntimeError(f"expected {name} to have dtype {acc_dtype(x)}, but got {t.dtype}")
