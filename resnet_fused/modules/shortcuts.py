"""Shortcuts of residual blocks: what leads the block's input x to the sum, and the gates that weigh it there.

A shortcut gives h of x, with the size of the block's output; a gate makes of h what is added, and the factor of the
residual function F (None: 1), so that the sum is factor·F(x) + shortcut.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_fused.modules.fused import FusedModule
from resnet_fused.modules.members import ConvBN, Members


class Terms(NamedTuple):
    shortcut: Tensor
    factor: Tensor | float | None  # of the residual function


def zero_padded(x: Tensor, planes: int, stride: int) -> Tensor:
    """Every stride-th pixel of x, with zero channels behind, `planes` in all."""
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, planes - x.shape[1]))


class ZeroPadding(nn.Module):
    """h = every stride-th pixel of x, with zero channels behind: option A. No parameters.

    x: [N, inplanes, H, W] → [N, planes, ⌈H/stride⌉, ⌈W/stride⌉]; ValueError for planes < inplanes. He et al. 2016 (Deep
    Residual Learning), section 3.3 (A).
    """

    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        if planes < inplanes:
            raise ValueError(f"zero channels cannot lead from {inplanes} to {planes} channels")
        self.planes, self.stride = planes, stride

    def forward(self, x: Tensor) -> Tensor:
        return zero_padded(x, self.planes, self.stride)


class Projection(FusedModule):
    """h = bn(conv(x)), a 1×1 convolution with the stride: option B. A unit of its own where the block's cannot hold it.

    x: [N, inplanes, H, W] → [N, planes, ⌈H/stride⌉, ⌈W/stride⌉]. He et al. 2016 (Deep Residual Learning), section 3.3.
    """

    def __init__(self, inplanes: int, planes: int, stride: int = 1, norm_layer=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inplanes, planes, kernel_size=1, stride=stride, bias=False)
        self.bn = (norm_layer or nn.BatchNorm2d)(planes)

    def members(self) -> Members:
        return Members((self.pair(),), ())

    def pair(self) -> ConvBN:
        return ConvBN(self.conv, self.bn)

    def final_relu(self) -> bool:
        return False

    def eager_forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class AveragePoolProjection(nn.Module):
    """h = bn(conv(pool(x))): the mean of stride×stride pixels, then a 1×1 convolution of stride 1; no pixel is dropped.

    x: [N, inplanes, H, W] → [N, planes, ⌈H/stride⌉, ⌈W/stride⌉]; at the border the mean is of the pixels there are. The
    pooling is PyTorch's, convolution and batch norm a unit; `bare`: there is no batch norm, and the convolution is
    PyTorch's too. He T. et al. 2019 (Bag of Tricks), section 4, ResNet-D.
    """

    def __init__(self, inplanes: int, planes: int, stride: int, norm_layer=None, bare: bool = False) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        self.projection = _projection(inplanes, planes, 1, norm_layer, bare)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.pool(x))


class ConstantScaling(nn.Module):
    """Sum: residual·F(x) + shortcut·h. He et al. 2016 (Identity Mappings), section 3.1 and table 1: 0.5 and 0.5, or 1.

    The residual function's factor is part of its last batch norm's or convolution's scale, and costs nothing.
    """

    def __init__(self, shortcut: float = 0.5, residual: float = 0.5) -> None:
        super().__init__()
        if not (shortcut > 0 and residual > 0):
            raise ValueError(f"the factors must be above 0, but are {shortcut} and {residual}")
        self.shortcut, self.residual = shortcut, residual

    def forward(self, h: Tensor) -> Terms:
        return Terms(h * self.shortcut, self.residual)

    def extra_repr(self) -> str:
        return f"shortcut={self.shortcut}, residual={self.residual}"


class Gate(nn.Module):
    """g = sigmoid(W h + b), a 1×1 convolution with bias. `bias`: what b starts at; below 0 the shortcut starts open."""

    def __init__(self, channels: int, bias: float = -6.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=1)
        self.bias = bias
        self.reset_bias()

    def reset_bias(self) -> None:
        nn.init.constant_(self.conv.bias, self.bias)

    def gate(self, h: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(h))


class ExclusiveGating(Gate):
    """Sum: g·F(x) + (1 − g)·h, g = sigmoid(W h + b). He et al. 2016 (Identity Mappings), section 3.1: b starts at −6.

    The residual function runs as a unit, the gate and the sum by PyTorch's operations.
    """

    def forward(self, h: Tensor) -> Terms:
        g = self.gate(h)
        return Terms((1 - g) * h, g)


class ShortcutOnlyGating(Gate):
    """Sum: F(x) + (1 − g)·h, g = sigmoid(W h + b). He et al. 2016 (Identity Mappings), section 3.1: b starts at −6.

    The gated shortcut is made by PyTorch's operations, the sum is within the residual function's unit.
    """

    def forward(self, h: Tensor) -> Terms:
        return Terms((1 - self.gate(h)) * h, None)


class DropoutShortcut(nn.Module):
    """Sum: F(x) + dropout(h). He et al. 2016 (Identity Mappings), section 3.1: half of the values are dropped.

    The shortcut is made by PyTorch's dropout, the sum is within the residual function's unit.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p)

    def forward(self, h: Tensor) -> Terms:
        return Terms(self.dropout(h), None)


class _Kind(NamedTuple):
    change: str | None  # how the shape is changed; None: as the network or the block says
    everywhere: bool = False  # whether a shape that stays is projected too
    gate: type[nn.Module] | None = None


CHANGES = ("projection", "padded", "average_pool")
SHORTCUTS = {
    "projection": _Kind("projection"),
    "padded": _Kind("padded"),
    "average_pool": _Kind("average_pool"),
    "convolution": _Kind("projection", everywhere=True),
    "scaling": _Kind(None, gate=ConstantScaling),
    "exclusive_gating": _Kind(None, gate=ExclusiveGating),
    "shortcut_gating": _Kind(None, gate=ShortcutOnlyGating),
    "dropout": _Kind(None, gate=DropoutShortcut),
}


def gate_of(name: str, channels: int) -> nn.Module | None:
    """The gate of a shortcut's name; ValueError for a name that is none."""
    if name not in SHORTCUTS:
        raise ValueError(f"there is no shortcut {name!r}; expected one of {', '.join(SHORTCUTS)}")
    gate = SHORTCUTS[name].gate
    return None if gate is None else gate(channels) if issubclass(gate, Gate) else gate()


def shortcut_of(
    name: str, inplanes: int, planes: int, stride: int, change: str, norm_layer, bare: bool
) -> nn.Module | None:
    """What gives h; None for x itself. bare: projections without batch norm. change: for names that leave it open."""
    kind = SHORTCUTS[name]
    changes = stride != 1 or inplanes != planes
    if not changes and not kind.everywhere:
        return None
    how = kind.change or change
    if how == "padded":
        return ZeroPadding(inplanes, planes, stride)
    if how == "average_pool" and stride != 1:  # there is nothing to pool otherwise
        return AveragePoolProjection(inplanes, planes, stride, norm_layer, bare)
    return _projection(inplanes, planes, stride, norm_layer, bare)


def _projection(inplanes: int, planes: int, stride: int, norm_layer, bare: bool) -> nn.Module:
    if bare:
        return nn.Conv2d(inplanes, planes, kernel_size=1, stride=stride, bias=False)
    return Projection(inplanes, planes, stride, norm_layer)
