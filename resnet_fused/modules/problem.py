"""The problem that a unit is: all that its time depends on besides the machine. What the tuning cache is keyed by."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from resnet_fused.autograd import Unit
from resnet_fused.modules.members import Branch


class Problem(NamedTuple):
    dtype: torch.dtype
    size: tuple[int, ...]
    layouts: tuple[bool, ...]  # of the input and of each weight: whether channels last
    weights: tuple[tuple[int, ...], ...]
    units: tuple[Unit, ...]
    projection: tuple[Unit, ...]
    identity: bool
    given: bool  # the shortcut is another tensor than the input or its projection
    pool: bool
    gradients: tuple[bool, bool]  # of the input, of any parameter

    def __str__(self) -> str:
        branches = (*self.units, *self.projection)
        layouts = ["nhwc" if last else "nchw" for last in self.layouts]
        words = [str(self.dtype).removeprefix("torch."), f"{_sizes(self.size)} {layouts[0]}"]
        words += [_words(*branch) for branch in zip(branches, self.weights, layouts[1:])]
        if self.projection:
            words[-1] = f"projection {words[-1]}"
        kinds = (("identity", self.identity), ("given shortcut", self.given), ("pool", self.pool))
        words += [word for word, holds in kinds if holds]
        gradients = [name for name, wanted in zip(("input", "parameters"), self.gradients) if wanted]
        return "; ".join((*words, "gradients: " + (" and ".join(gradients) or "none")))


def _sizes(size) -> str:
    return "x".join(map(str, size))


def _words(unit: Unit, weight, layout: str) -> str:
    conv = unit.conv
    words = [_sizes(weight), layout, f"stride {_sizes(conv.stride)}", f"padding {_sizes(conv.padding)}"]
    if conv.dilation != (1, 1):
        words.append(f"dilation {_sizes(conv.dilation)}")
    if conv.groups != 1:
        words.append(f"groups {conv.groups}")
    return " ".join((*words, "bn" if unit.batch_stats else "frozen", *(["relu"] if unit.relu else [])))


@functools.lru_cache(maxsize=4096)
def _is_channels_last(size: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Remembered: asked for every tensor of every call, and slow, being written for symbolic sizes."""
    return suggest_memory_format(torch.empty_strided(size, stride, device="meta")) == torch.channels_last


def problem_of(
    branches: list[Branch], main: int, identity: bool, given: bool, pool: bool, x: Tensor, weights
) -> Problem:
    layouts = tuple(_is_channels_last(t.shape, t.stride()) for t in (x, *weights))
    gradients = (False, False)
    if torch.is_grad_enabled():
        parameters = (p for branch in branches for p in (branch.weight, *branch.norm) if p is not None)
        gradients = (x.requires_grad, any(p.requires_grad for p in parameters))
    units = tuple(branch.unit for branch in branches)
    return Problem(
        x.dtype, tuple(x.shape), layouts, tuple(tuple(w.shape) for w in weights), units[:main], units[main:], identity,
        given, pool, gradients,
    )  # fmt: skip
