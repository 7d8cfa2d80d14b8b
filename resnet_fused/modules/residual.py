"""Residual blocks in the five orderings of He et al. 2016 (Identity Mappings in Deep Residual Networks), figure 4.

Every block is a residual function F of two layers ("basic": 3×3, 3×3) or three ("bottleneck": 1×1, 3×3, 1×1), with any
of the shortcuts in shortcuts.py, and squeeze-and-excitation and stochastic depth on F if asked for. As far as the sum
can be formed in a unit it is; PyTorch's are sums behind a factor of F that is a tensor (exclusive gating, excitation,
stochastic depth in training). Within resnet_fused.backend("eager") the same module runs by calling its children.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from resnet_fused.autograd import handover
from resnet_fused.modules.blocks import padded_conv
from resnet_fused.modules.branch_options import SqueezeExcitation, stochastic_depth
from resnet_fused.modules.fused import FusedModule, Prepared, statistics_restored_on_error
from resnet_fused.modules.parts import ChainPart, NormActPart, PreactivationPart, Sum
from resnet_fused.modules.shortcuts import CHANGES, ExclusiveGating, Projection, ZeroPadding, gate_of, shortcut_of

EXPANSION = {"basic": 1, "bottleneck": 4}


class BlockLayers(NamedTuple):
    """Of the residual function: how many, how wide, where it strides. As in torchvision's blocks."""

    kind: str = "basic"  # or "bottleneck"
    groups: int = 1  # of a bottleneck's 3×3
    base_width: int = 64
    stride_on: str = "3x3"  # of a bottleneck: or "1x1", the first

    def convs(self, inplanes: int, planes: int, stride: int) -> list[nn.Conv2d]:
        if self.kind == "basic":
            if self.groups != 1 or self.base_width != 64:
                raise ValueError("a basic block only supports groups=1 and base_width=64")
            if self.stride_on != "3x3":
                raise ValueError("stride_on='1x1' is for bottlenecks; a basic block has no 1x1 convolution")
            return [padded_conv(inplanes, planes, 3, stride), padded_conv(planes, planes, 3)]
        if self.kind != "bottleneck":
            raise ValueError(f"there are no layers {self.kind!r}; expected basic or bottleneck")
        if self.stride_on not in ("3x3", "1x1"):
            raise ValueError(f"stride_on={self.stride_on!r}: expected '3x3' (torchvision) or '1x1' (the paper)")
        width = int(planes * (self.base_width / 64.0)) * self.groups
        strides = (1, stride) if self.stride_on == "3x3" else (stride, 1)
        return [
            padded_conv(inplanes, width, 1, strides[0]),
            padded_conv(width, width, 3, strides[1], self.groups),
            padded_conv(width, planes * EXPANSION["bottleneck"], 1),
        ]


class BlockOptions(NamedTuple):
    """Of a residual block, besides its ordering and its layers."""

    shortcut: str = "projection"  # a name of shortcuts.SHORTCUTS
    change: str = "projection"  # how names that leave it open change the shape: a name of shortcuts.CHANGES
    norm_layer: type[nn.Module] | None = None  # nn.BatchNorm2d unless given
    reduction: int | None = None  # of squeeze-and-excitation; None: there is none
    stochastic_depth: float = 0.0  # probability that an image's residual function is dropped in training


class ResidualBlock(FusedModule):
    """The part that the orderings share; use a subclass, of which each says what it computes.

    x: [N, inplanes, H, W] float32, float64, bfloat16 or float16 → [N, planes·expansion, ⌈H/stride⌉, ⌈W/stride⌉].
    Children conv1, bn1, … relu, and where there are such: shortcut, gate, excitation. preactivated: of
    PreactivationBlock. Errors are eager's; ValueError for names that are none, and for zero padding to fewer channels.
    """

    bare_projection = False  # without batch norm: one follows the sum, or stands before the next convolutions
    owns_identity = True  # whether the unit adds the shortcut itself
    owns_projection = True
    takes_preactivated = False
    zero_init = True  # whether F starts as zero with its last batch norm's scale, and trains

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, layers: BlockLayers = BlockLayers(),
        options: BlockOptions = BlockOptions(), preactivated: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if preactivated and not self.takes_preactivated:
            raise ValueError(f"a {type(self).__name__} has no batch norm before its first convolution")
        if options.change not in CHANGES:
            raise ValueError(f"there is no change of shape {options.change!r}; expected one of {', '.join(CHANGES)}")
        if not 0 <= options.stochastic_depth < 1:
            raise ValueError(f"stochastic_depth must be at least 0 and below 1, but is {options.stochastic_depth}")
        convs, norm_layer = layers.convs(inplanes, planes, stride), options.norm_layer or nn.BatchNorm2d
        self.depth, out = len(convs), convs[-1].out_channels
        for i, (conv, channels) in enumerate(zip(convs, self.normalised(convs)), 1):
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", None if preactivated and i == 1 else norm_layer(channels))
        self.relu = nn.ReLU(inplace=True)
        self.gate = gate_of(options.shortcut, out)
        self.shortcut = shortcut_of(
            options.shortcut, inplanes, out, stride, options.change, options.norm_layer, self.bare_projection
        )
        self.excitation = None if options.reduction is None else SqueezeExcitation(out, options.reduction)
        self.stochastic_depth = options.stochastic_depth

    @staticmethod
    def normalised(convs: list[nn.Conv2d]) -> list[int]:
        """The channels of each batch norm."""
        return [conv.out_channels for conv in convs]

    def convs(self) -> list[nn.Module]:
        return [getattr(self, f"conv{i}") for i in range(1, self.depth + 1)]

    def norms(self) -> list[nn.Module | None]:
        return [getattr(self, f"bn{i}") for i in range(1, self.depth + 1)]

    def projects(self) -> bool:
        """Whether the shortcut is one that a unit can hold besides x itself."""
        return type(self.shortcut) is (nn.Conv2d if self.bare_projection else Projection)

    def owns(self) -> bool:
        return self.owns_identity if self.shortcut is None else self.owns_projection and self.projects()

    def prepare(self, x: Tensor, part) -> Prepared:
        return part.prepare(self, x)

    def eager_forward(self, x: Tensor, part) -> Tensor:
        return part.eager(self, x)

    def unit_name(self, part) -> str:
        return part.name

    def enter(self, x: Tensor) -> tuple[Tensor, bool]:
        """What the residual function and a projection read where these are apart; whether it is activated already."""
        return x, False

    def joined(self, x: Tensor, entered: bool, join: Sum) -> Tensor:
        """The block's output, the sum within its unit if that can be."""
        raise NotImplementedError

    def branch(self, x: Tensor, entered: bool) -> Tensor:
        """F alone."""
        raise NotImplementedError

    def leave(self, y: Tensor) -> Tensor:
        """What follows the sum."""
        return y

    def forward(self, x: Tensor) -> Tensor:
        apart = self.excitation is not None or (self.training and self.stochastic_depth > 0)
        if self.gate is None and not apart and self.owns():
            return self.joined(x, False, Sum(own=True))
        apart = apart or isinstance(self.gate, ExclusiveGating)
        if not apart and self.owns_identity and (self.shortcut is None or type(self.shortcut) is ZeroPadding):
            return self._composed(x, apart)  # all batch norms, and the sum, are joined's
        # A unit updates its running statistics when it has run, and what comes behind it may fail: a call that raises
        # leaves them as they were, so they are copied. That takes 0.2 % of a training step of CIFAR's smallest block.
        with statistics_restored_on_error(self):
            return self._composed(x, apart)

    def _composed(self, x: Tensor, apart: bool) -> Tensor:
        """The shortcut is made first; `apart`: F is changed before it is added."""
        handover.interrupt()  # both read x
        operand, entered = self.enter(x) if self.projects() else (x, False)
        h = x if self.shortcut is None else self.shortcut(operand if self.projects() else x)
        h, factor = (h, None) if self.gate is None else self.gate(h)
        if not apart:
            return self.joined(operand, entered, Sum(shortcut=h, scale=1.0 if factor is None else factor))
        y = self.branch(operand, entered)
        y = y if self.excitation is None else self.excitation(y)
        y = y if factor is None else y * factor
        if self.training and self.stochastic_depth > 0:
            y = stochastic_depth(y, self.stochastic_depth)
        return self.leave(y + h)


class OriginalBlock(ResidualBlock):
    """relu(bn_n(conv_n(… relu(bn_1(conv_1(x))) …)) + shortcut): figure 4 (a); He et al. 2016 (Deep Residual Learning).

    One residual chain, with identity or projection within it, other shortcuts given to it.
    """

    def joined(self, x, entered, join):
        return self.fused_forward(x, ChainPart(join, relu=True))

    def branch(self, x, entered):
        return self.fused_forward(x, ChainPart(Sum(), relu=False))

    def leave(self, y):
        return self.relu(y)


class NormAfterAdditionBlock(ResidualBlock):
    """relu(bn_n(conv_n(… relu(bn_1(conv_1(x))) …) + shortcut)): figure 4 (b).

    Two units: the convolutions and the sum, then batch norm and ReLU. A projection has no batch norm of its own.
    """

    bare_projection = True
    zero_init = False  # the scale is the whole block's

    def _convolved(self, x, join):
        return self.fused_forward(x, PreactivationPart(join, (None, *self.norms()[:-1])))

    def joined(self, x, entered, join):
        with statistics_restored_on_error(self):
            return self.leave(self._convolved(x, join))

    def branch(self, x, entered):
        return self._convolved(x, Sum())

    def leave(self, y):
        return self.fused_forward(y, NormActPart(self.norms()[-1]))


class ReluBeforeAdditionBlock(ResidualBlock):
    """relu(bn_n(conv_n(…))) + shortcut: figure 4 (c). The residual function is one unit, the sum PyTorch's."""

    owns_identity = owns_projection = False
    zero_init = False  # ReLU passes no gradient where it gives zero

    def joined(self, x, entered, join):
        return join._replace(scale=1.0).of(self, self.fused_forward(x, ChainPart(Sum(scale=join.scale), relu=True)), x)

    def branch(self, x, entered):
        return self.fused_forward(x, ChainPart(Sum(), relu=True))


class ReluPreactivationBlock(ResidualBlock):
    """bn_n(conv_n(… relu(bn_1(conv_1(relu(x)))) …)) + shortcut: figure 4 (d).

    PyTorch's ReLU of x, then one residual chain of which a projection, reading relu(x) too, is part. A pooled
    projection reads x.
    """

    owns_identity = False

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.entry = nn.ReLU()  # not in place: x is the shortcut

    def enter(self, x):
        return self.entry(x), True

    def joined(self, x, entered, join):
        operand = x if entered else self.entry(x)
        return self.fused_forward(operand, ChainPart(join, relu=False))

    def branch(self, x, entered):
        return self.joined(x, entered, Sum())


class PreactivationBlock(ResidualBlock):
    """conv_n(relu(bn_n(… conv_1(relu(bn_1(x))) …))) + shortcut: figure 4 (e).

    One pre-activation chain. A projection is a bare convolution that reads relu(bn_1(x)), as in the authors' networks
    (github.com/KaimingHe/resnet-1k-layers); where F is changed before the sum, it and F read what a unit of batch norm
    and ReLU left. A pooled projection reads x. `preactivated`: x is activated already, as behind an ImageNet network's
    stem, and there is no bn1.
    """

    bare_projection = takes_preactivated = True
    zero_init = False  # F ends in a convolution

    @staticmethod
    def normalised(convs):
        return [conv.in_channels for conv in convs]

    def enter(self, x):
        bn = self.norms()[0]
        return (x if bn is None else self.fused_forward(x, NormActPart(bn))), True

    def joined(self, x, entered, join):
        first, *others = self.norms()
        return self.fused_forward(x, PreactivationPart(join, (None if entered else first, *others)))

    def branch(self, x, entered):
        return self.joined(x, entered, Sum())


ORDERINGS = {
    "original": OriginalBlock,
    "bn_after_add": NormAfterAdditionBlock,
    "relu_before_add": ReluBeforeAdditionBlock,
    "relu_preactivation": ReluPreactivationBlock,
    "preactivation": PreactivationBlock,
}
