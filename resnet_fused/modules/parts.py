"""The units that a residual block of any ordering is made of, each for one call of the block: fused, and eager.

A part says how the sum is formed in it, if it is: with the block's own shortcut, which is within the unit, with a
tensor that is given, or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from resnet_fused.modules.fused import ChainUnit, Prepared, prepare_chain
from resnet_fused.modules.members import ConvBN, Members
from resnet_fused.modules.preactivation import (
    NormConv,
    PreMembers,
    PreactivationUnit,
    prepare_norm_act,
    prepare_preactivation,
)

if TYPE_CHECKING:
    from resnet_fused.modules.residual import ResidualBlock


class Sum(NamedTuple):
    """scale·F(x) + shortcut."""

    own: bool = False  # the shortcut is the block's: x, or its projection
    shortcut: Tensor | None = None
    scale: float = 1.0

    def of(self, block: ResidualBlock, y: Tensor, x: Tensor) -> Tensor:
        """By PyTorch's operations; y: F(x), x: what the block's own projection reads, or is added itself."""
        y = y if self.scale == 1 else y * self.scale
        if self.own:
            return y + (x if block.shortcut is None else block.shortcut(x))
        return y if self.shortcut is None else y + self.shortcut


class ChainPart(NamedTuple):
    """relu(bn_n(conv_n(… relu(bn_1(conv_1(x))) …)) + shortcut), with the last ReLU or without: a residual chain."""

    sum: Sum
    relu: bool

    name = "residual chain"

    def prepare(self, block: ResidualBlock, x: Tensor) -> Prepared:
        projects = self.sum.own and block.shortcut is not None
        main = tuple(ConvBN(conv, bn) for conv, bn in zip(block.convs(), block.norms()))
        projection = (block.shortcut.pair(),) if projects else ()
        containers = (block.shortcut,) if projects else ()
        return prepare_chain(x, ChainUnit(
            Members(main, (block.relu,), projection, containers), self.relu, self.sum.own and not projects, False,
            lambda _: self.sum.shortcut, self.sum.scale,
        ))  # fmt: skip

    def eager(self, block: ResidualBlock, x: Tensor) -> Tensor:
        y = x
        for i, (conv, bn) in enumerate(zip(block.convs(), block.norms())):
            y = bn(conv(block.relu(y) if i else y))
        y = self.sum.of(block, y, x)
        return block.relu(y) if self.relu else y


class PreactivationPart(NamedTuple):
    """conv_n(relu(bn_n(… conv_1(relu(bn_1(x))) …))) + shortcut: a pre-activation chain.

    norms: before the convolutions, None before one that reads its operand as it is.
    """

    sum: Sum
    norms: tuple[nn.Module | None, ...]

    name = "pre-activation chain"

    def prepare(self, block: ResidualBlock, x: Tensor) -> Prepared:
        main = tuple(NormConv(bn, conv) for bn, conv in zip(self.norms, block.convs()))
        projection = (block.shortcut,) if self.sum.own and block.shortcut is not None else ()
        identity = self.sum.own and block.shortcut is None
        members = PreMembers(main, (block.relu,), projection)
        return prepare_preactivation(x, PreactivationUnit(members, identity, self.sum.shortcut, self.sum.scale))

    def eager(self, block: ResidualBlock, x: Tensor) -> Tensor:
        y = first = x
        for i, (bn, conv) in enumerate(zip(self.norms, block.convs())):
            operand = y if bn is None else block.relu(bn(y))
            first = operand if i == 0 else first
            y = conv(operand)
        return self.sum.of(block, y, x if block.shortcut is None else first)


class NormActPart(NamedTuple):
    """relu(bn(x))."""

    bn: nn.Module

    name = "batch norm and ReLU"

    def prepare(self, block: ResidualBlock, x: Tensor) -> Prepared:
        return prepare_norm_act(x, self.bn, block.relu)

    def eager(self, block: ResidualBlock, x: Tensor) -> Tensor:
        return block.relu(self.bn(x))
