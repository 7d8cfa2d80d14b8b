"""Residual networks of any ordering, shortcut and norm: what create()'s options of these names build."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from torch import nn

from resnet_fused.models.staged import StagedNet, Stem
from resnet_fused.modules import ORDERINGS, BlockLayers, BlockOptions, ConvBNAct, NormAct
from resnet_fused.modules.residual import EXPANSION
from resnet_fused.modules.shortcuts import SHORTCUTS
from resnet_fused.modules.torchvision import INSTALLED, FrozenBatchNorm2d

NORMS = {"batch": nn.BatchNorm2d, "frozen": FrozenBatchNorm2d, "sync": nn.SyncBatchNorm}


class Variation(NamedTuple):
    """How a network's blocks differ from the original's."""

    block: str = "original"
    shortcut: str = "projection"
    norm: str = "batch"
    se: bool = False
    stochastic_depth: float = 0.0  # of the last block; it rises from the first linearly

    def check(self, zero_init_residual: bool) -> None:
        """ValueError for what is none, or does not go together."""
        for kind, name, names in (
            ("block", self.block, ORDERINGS), ("shortcut", self.shortcut, SHORTCUTS), ("norm", self.norm, NORMS)
        ):  # fmt: skip
            if name not in names:
                raise ValueError(f"{kind}={name!r}: expected one of {', '.join(names)}")
        if self.norm == "frozen" and not INSTALLED:
            raise ValueError("norm='frozen' is torchvision's FrozenBatchNorm2d: pip install torchvision")
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"stochastic_depth={self.stochastic_depth}: expected at least 0 and below 1")
        if zero_init_residual and not ORDERINGS[self.block].zero_init:
            raise ValueError(f"zero_init_residual: in a {self.block} block the last batch norm does not end the branch")
        if zero_init_residual and self.norm == "frozen":
            raise ValueError("zero_init_residual: a frozen batch norm would stay zero")

    def is_original(self, shortcut: str) -> bool:
        """Whether the blocks are those of torchvision, or of the paper for CIFAR; `shortcut`: which they have."""
        return self.block == "original" and self.shortcut == shortcut and not self.se and self.stochastic_depth == 0

    def norm_layer(self) -> type[nn.Module]:
        return NORMS[self.norm]


class Shape(NamedTuple):
    """A network's stages."""

    layers: BlockLayers
    counts: Sequence[int]  # blocks of each stage
    inplanes: int  # behind the stem
    planes: Sequence[int]  # of each stage's blocks
    change: str  # how shortcuts change the shape where their name does not say: shortcuts.CHANGES


def imagenet_net(shape: Shape, variation: Variation, num_classes: int, zero_init_residual: bool) -> StagedNet:
    """A stem of 7×7 convolution and pool, then the stages. Behind it x is activated, which pre-activation counts on."""
    return _net(Stem(variation.norm_layer()), shape, variation, True, num_classes, zero_init_residual)


def cifar_net(shape: Shape, variation: Variation, num_classes: int, zero_init_residual: bool) -> StagedNet:
    """A stem of a 3×3 convolution, then the stages; with pre-activation no batch norm follows the stem."""
    if variation.block == "preactivation":
        stem = nn.Conv2d(3, shape.inplanes, kernel_size=3, padding=1, bias=False)
    else:
        stem = ConvBNAct(3, shape.inplanes, norm_layer=variation.norm_layer())
    return _net(stem, shape, variation, False, num_classes, zero_init_residual)


def _net(stem, shape: Shape, variation: Variation, preactivated: bool, num_classes: int, zero_init: bool) -> StagedNet:
    channels = shape.planes[-1] * EXPANSION[shape.layers.kind]
    preactivated = preactivated and variation.block == "preactivation"
    stages = _stages(shape, variation, preactivated)
    return StagedNet(stem, stages, channels, num_classes, zero_init, _last(variation, channels))


def _last(variation: Variation, channels: int) -> nn.Module | None:
    """The activation behind the last sum, where the ordering leaves it to the next block."""
    if variation.block == "preactivation":
        return NormAct(channels, variation.norm_layer())
    return nn.ReLU() if variation.block == "relu_preactivation" else None


def _stages(shape: Shape, variation: Variation, preactivated: bool) -> list[nn.Sequential]:
    inplanes, done, total = shape.inplanes, 0, sum(shape.counts)
    stages = []
    for i, (planes, count) in enumerate(zip(shape.planes, shape.counts)):
        blocks = []
        for j in range(count):
            done += 1
            options = BlockOptions(
                variation.shortcut, shape.change, variation.norm_layer(), 16 if variation.se else None,
                variation.stochastic_depth * done / total,
            )  # fmt: skip
            stride = 2 if i > 0 and j == 0 else 1
            first = preactivated and i == 0 and j == 0
            blocks.append(ORDERINGS[variation.block](inplanes, planes, stride, shape.layers, options, first))
            inplanes = planes * EXPANSION[shape.layers.kind]
        stages.append(nn.Sequential(*blocks))
    return stages
