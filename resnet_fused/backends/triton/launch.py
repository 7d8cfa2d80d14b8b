"""Where every kernel is started."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


def _on_device(kernel, grid: tuple[int, ...], arguments, options) -> None:
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        kernel[grid](*arguments, **options)


_run = _on_device


@torch.compiler.disable  # where torch.compile comes here, an operator runs outside of its graph: not to be looked into
def launch(kernel, grid: tuple[int, ...], *arguments, **options) -> None:
    """`kernel[grid](*arguments, **options)` on the device of its tensors and the current stream there.

    Options are the constexprs and num_warps, num_stages. A product and a sum are one multiply-add where a kernel says
    tl.fma and nowhere else, so that forward and backward compute the same ReLU masks.
    """
    _run(kernel, grid, arguments, {"enable_fp_fusion": False, **options})


@contextlib.contextmanager
def replaced(run):
    """run(kernel, grid, arguments, options) in the place of every launch: for tests without a GPU."""
    global _run
    previous, _run = _run, run
    try:
        yield
    finally:
        _run = previous
