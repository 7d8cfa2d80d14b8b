"""The plain networks: the residual ones without their shortcuts."""

from __future__ import annotations

from torch import nn

from resnet_fused.models.cifar import WIDTHS, blocks_per_stage
from resnet_fused.models.conv_chain import ConvChain
from resnet_fused.models.staged import StagedNet, Stem
from resnet_fused.modules import ConvBNAct

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # pairs of 3×3 convolutions


def _stage(inplanes: int, planes: int, pairs: int, stride: int) -> ConvChain:
    """A stage's 3×3 convolutions with their batch norms and ReLUs, which all run as one unit."""
    layers: list[nn.Module] = []
    for i in range(2 * pairs):
        operand = (inplanes, planes, 3, stride) if i == 0 else (planes, planes, 3, 1)
        layers += [nn.Conv2d(*operand, padding=1, bias=False), nn.BatchNorm2d(planes), nn.ReLU(inplace=True)]
    return ConvChain(*layers)


def plain(depth: int, num_classes: int = 1000) -> StagedNet:
    """The plain network of 18 or 34 layers for ImageNet. He et al. 2016, section 3.3 and figure 3, middle."""
    widths = (64, 64, 128, 256, 512)
    stages = [
        _stage(inplanes, planes, pairs, 1 if i == 0 else 2)
        for i, (inplanes, planes, pairs) in enumerate(zip(widths, widths[1:], LAYERS[depth]))
    ]
    return StagedNet(Stem(), stages, 512, num_classes)


def cifar_plain(depth: int, num_classes: int = 10) -> StagedNet:
    """The plain network of 6n + 2 layers for CIFAR-10; ValueError for another depth. He et al. 2016, section 4.2."""
    n = blocks_per_stage(depth)
    widths = (16, *WIDTHS)
    stages = [_stage(*pair, n, 1 if i == 0 else 2) for i, pair in enumerate(zip(widths, widths[1:]))]
    return StagedNet(ConvBNAct(3, 16), stages, WIDTHS[-1], num_classes)
