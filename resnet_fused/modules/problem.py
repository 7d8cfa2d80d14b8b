"""The problem that a unit is: all that its time depends on besides the machine. What the tuning cache is keyed by."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from resnet_fused.autograd import Conv, Norm, PreUnit, Unit
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
        return "; ".join((*words, _gradient_words(self.gradients)))


def _sizes(size) -> str:
    return "x".join(map(str, size))


def _gradient_words(gradients: tuple[bool, bool]) -> str:
    names = [name for name, wanted in zip(("input", "parameters"), gradients) if wanted]
    return "gradients: " + (" and ".join(names) or "none")


def _words(unit: Unit, weight, layout: str) -> str:
    words = [_conv_words(unit.conv, weight, layout), "bn" if unit.batch_stats else "frozen"]
    return " ".join((*words, *(["relu"] if unit.relu else [])))


def _conv_words(conv: Conv, weight, layout: str) -> str:
    words = [_sizes(weight), layout, f"stride {_sizes(conv.stride)}", f"padding {_sizes(conv.padding)}"]
    if conv.dilation != (1, 1):
        words.append(f"dilation {_sizes(conv.dilation)}")
    if conv.groups != 1:
        words.append(f"groups {conv.groups}")
    return " ".join(words)


def _norm_words(norm: Norm | None) -> str:
    """Of what stands before a convolution."""
    return "plain" if norm is None else "bn relu" if norm.batch_stats else "frozen relu"


@functools.lru_cache(maxsize=4096)
def _is_channels_last(size: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Remembered: asked for every tensor of every call, and slow, being written for symbolic sizes."""
    return suggest_memory_format(torch.empty_strided(size, stride, device="meta")) == torch.channels_last


def is_channels_last(t: Tensor) -> bool:
    return _is_channels_last(t.shape, t.stride())


def gradients_of(x: Tensor, parameters) -> tuple[bool, bool]:
    """Whether x's gradient will be asked for, and any parameter's."""
    if not torch.is_grad_enabled():
        return (False, False)
    return (x.requires_grad, any(p.requires_grad for p in parameters))


def problem_of(
    branches: list[Branch], main: int, identity: bool, given: bool, pool: bool, x: Tensor, weights
) -> Problem:
    layouts = tuple(map(is_channels_last, (x, *weights)))
    gradients = gradients_of(x, (p for branch in branches for p in (branch.weight, *branch.norm) if p is not None))
    units = tuple(branch.unit for branch in branches)
    return Problem(
        x.dtype, tuple(x.shape), layouts, tuple(tuple(w.shape) for w in weights), units[:main], units[main:], identity,
        given, pool, gradients,
    )  # fmt: skip


class PreactivationProblem(NamedTuple):
    """A pre-activation chain, or a lone batch norm with ReLU: then `units` is its Norm, and there are no weights."""

    dtype: torch.dtype
    size: tuple[int, ...]
    layouts: tuple[bool, ...]  # of the input and of each weight: whether channels last
    weights: tuple[tuple[int, ...], ...]  # the projection's last
    units: tuple[PreUnit, ...] | tuple[Norm]
    projection: tuple[Conv, ...]
    identity: bool
    given: bool
    gradients: tuple[bool, bool]  # of the input, of any parameter

    def __str__(self) -> str:
        layouts = ["nhwc" if last else "nchw" for last in self.layouts]
        words = [str(self.dtype).removeprefix("torch."), f"{_sizes(self.size)} {layouts[0]}"]
        if not self.weights:
            words.append(_norm_words(self.units[0]))
        else:
            convs = [(_norm_words(u.norm), u.conv) for u in self.units] + [("projection", c) for c in self.projection]
            words += [
                f"{before} {_conv_words(conv, weight, layout)}"
                for (before, conv), weight, layout in zip(convs, self.weights, layouts[1:])
            ]
        words += [word for word, holds in (("identity", self.identity), ("given shortcut", self.given)) if holds]
        return "; ".join((*words, _gradient_words(self.gradients)))
