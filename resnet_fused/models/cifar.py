"""The residual networks for CIFAR-10: 6n + 2 layers, shortcuts without parameters."""

from __future__ import annotations

from torch import Tensor, nn

from resnet_fused.models.staged import StagedNet
from resnet_fused.models.variants import Shape, Variation, cifar_net
from resnet_fused.modules import BasicBlock, BlockLayers, ConvBNAct, FusedModule
from resnet_fused.modules.members import ConvBN, Members
from resnet_fused.modules.shortcuts import zero_padded

WIDTHS = (16, 32, 64)


class PaddedBlock(FusedModule):
    """A basic block that changes the shape, with the shortcut of option A: every stride-th pixel, then zero channels.

        out = relu(bn2(conv2(relu(bn1(conv1(x))))) + pad(x[:, :, ::stride, ::stride]))

    x: [N, inplanes, H, W] → [N, planes, ⌈H/stride⌉, ⌈W/stride⌉], planes ≥ inplanes; the zeros come behind x's channels.
    He et al. 2016, section 3.3 (A) and 4.2.
    """

    def __init__(self, inplanes: int, planes: int, stride: int = 1, norm_layer=None) -> None:
        super().__init__()
        norm_layer = norm_layer or nn.BatchNorm2d
        if planes < inplanes:
            raise ValueError(f"zero channels cannot lead from {inplanes} to {planes} channels")
        self.conv1 = nn.Conv2d(inplanes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = norm_layer(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, padding=1, bias=False)
        self.bn2 = norm_layer(planes)
        self.stride = stride

    def members(self) -> Members:
        return Members((ConvBN(self.conv1, self.bn1), ConvBN(self.conv2, self.bn2)), (self.relu,))

    def given_shortcut(self, x: Tensor) -> Tensor:
        return zero_padded(x, self.conv2.out_channels, self.stride)

    def eager_forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.given_shortcut(x)
        return self.relu(out)


def cifar_resnet(
    depth: int, num_classes: int = 10, zero_init_residual: bool = False, block: str = "original",
    shortcut: str = "padded", norm: str = "batch", se: bool = False, stochastic_depth: float = 0.0,
) -> StagedNet:  # fmt: skip
    """ResNet of 6n + 2 layers: a 3×3 stem, n basic blocks each of 16, 32 and 64 channels, and a linear layer.

    Raises ValueError for a depth that is not 6n + 2, and for names that are none; options as of create(). He et al.
    2016, section 4.2.
    """
    n = blocks_per_stage(depth)
    variation = Variation(block, shortcut, norm, se, stochastic_depth)
    variation.check(zero_init_residual)
    if not variation.is_original("padded"):
        shape = Shape(BlockLayers("basic"), (n,) * 3, WIDTHS[0], WIDTHS, "padded")
        return cifar_net(shape, variation, num_classes, zero_init_residual)
    layer = variation.norm_layer()
    stages = [nn.Sequential(*(BasicBlock(16, 16, norm_layer=layer) for _ in range(n)))]
    for inplanes, planes in zip(WIDTHS, WIDTHS[1:]):
        first = PaddedBlock(inplanes, planes, 2, layer)
        stages.append(nn.Sequential(first, *(BasicBlock(planes, planes, norm_layer=layer) for _ in range(n - 1))))
    return StagedNet(ConvBNAct(3, 16, norm_layer=layer), stages, WIDTHS[-1], num_classes, zero_init_residual)


def cifar_preresnet(
    depth: int, num_classes: int = 10, shortcut: str = "projection", norm: str = "batch", se: bool = False,
    stochastic_depth: float = 0.0,
) -> StagedNet:  # fmt: skip
    """Pre-activation ResNet of 9n + 2 layers: a 3×3 stem, n bottlenecks each of 64, 128 and 256 channels, batch norm
    and ReLU, and a linear layer. Bottlenecks halve in their first 1×1, as the authors' do (KaimingHe/resnet-1k-layers).

    Raises ValueError for a depth that is not 9n + 2, and for names that are none. He et al. 2016 (Identity Mappings in
    Deep Residual Networks), section 4 and appendix.
    """
    n, left = divmod(depth - 2, 9)
    if left or n < 1:
        raise ValueError(f"a pre-activation network has 9n + 2 layers: 11, 20, 29, …; not {depth}")
    variation = Variation("preactivation", shortcut, norm, se, stochastic_depth)
    variation.check(False)
    shape = Shape(BlockLayers("bottleneck", stride_on="1x1"), (n,) * 3, WIDTHS[0], WIDTHS, "projection")
    return cifar_net(shape, variation, num_classes, False)


def blocks_per_stage(depth: int) -> int:
    """n of 6n + 2."""
    n, left = divmod(depth - 2, 6)
    if left or n < 1:
        raise ValueError(f"a CIFAR network has 6n + 2 layers: 8, 14, 20, …; not {depth}")
    return n
