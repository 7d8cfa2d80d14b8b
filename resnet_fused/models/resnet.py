"""The residual networks for ImageNet, with torchvision's names: ResNet, ResNeXt, Wide ResNet."""

from __future__ import annotations

from typing import Sequence

from torch import nn

from resnet_fused.models.initialise import initialise
from resnet_fused.models.variants import Shape, Variation, imagenet_net
from resnet_fused.modules import BlockLayers, blocks, resnet


class ResNet(resnet.ResNet):
    """torchvision.models.ResNet of fused blocks and a fused stem: same children, names, draws and state_dict.

    x: [N, 3, H, W] → [N, num_classes]. Stages of 64, 128, 256 and 512 planes, `layers[i]` blocks each; the first block
    of a stage but the first halves the extent, and projects its shortcut (option B) wherever the shape changes.
    stride_on: which convolution of a bottleneck halves: "3x3" as in torchvision ("v1.5"), or "1x1", the first one, as
    in the paper ("v1"). groups, width_per_group: of the 3×3 convolutions (ResNeXt: Xie et al. 2017; Wide ResNet:
    Zagoruyko & Komodakis 2016). norm_layer: nn.BatchNorm2d unless given. zero_init_residual and the draws:
    initialise(). He et al. 2016, table 1.
    Raises ValueError for another stride_on, or for "1x1" with basic blocks, which have no 1×1 convolution.
    """

    def __init__(
        self, block: type[nn.Module], layers: Sequence[int], num_classes: int = 1000, zero_init_residual: bool = False,
        groups: int = 1, width_per_group: int = 64, stride_on: str = "3x3", norm_layer: type[nn.Module] | None = None,
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)
        if stride_on not in ("3x3", "1x1"):
            raise ValueError(f"stride_on={stride_on!r}: expected '3x3' (torchvision) or '1x1' (the paper)")
        if stride_on == "1x1" and block.expansion == 1:
            raise ValueError("stride_on='1x1' is for bottlenecks; a basic block has no 1x1 convolution")
        self.groups, self.base_width, self.inplanes = groups, width_per_group, 64
        self._norm_layer = norm_layer or nn.BatchNorm2d
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = self._norm_layer(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, 64, layers[0])
        self.layer2 = self._make_layer(block, 128, layers[1], 2)
        self.layer3 = self._make_layer(block, 256, layers[2], 2)
        self.layer4 = self._make_layer(block, 512, layers[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        if stride_on == "1x1":
            _move_strides(self)
        initialise(self, zero_init_residual)

    def _make_layer(self, block, planes: int, count: int, stride: int = 1) -> nn.Sequential:
        out, downsample = planes * block.expansion, None
        if stride != 1 or self.inplanes != out:
            projection = nn.Conv2d(self.inplanes, out, kernel_size=1, stride=stride, bias=False)
            downsample = nn.Sequential(projection, self._norm_layer(out))
        options = dict(groups=self.groups, base_width=self.base_width, norm_layer=self._norm_layer)
        stage = [block(self.inplanes, planes, stride, downsample, **options)]
        self.inplanes = out
        stage += [block(out, planes, **options) for _ in range(1, count)]
        return nn.Sequential(*stage)


def _move_strides(model: nn.Module) -> None:
    for block in model.modules():
        if isinstance(block, blocks.Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def imagenet_resnet(
    kind: str, layers: Sequence[int], num_classes: int = 1000, zero_init_residual: bool = False, groups: int = 1,
    width_per_group: int = 64, stride_on: str = "3x3", block: str = "original", shortcut: str = "projection",
    norm: str = "batch", se: bool = False, stochastic_depth: float = 0.0,
) -> nn.Module:  # fmt: skip
    """A residual network for ImageNet: ResNet, or a StagedNet where its blocks are others; kind: basic or bottleneck.

    Arguments as of ResNet and create(). Raises ValueError for names that are none.
    """
    variation = Variation(block, shortcut, norm, se, stochastic_depth)
    variation.check(zero_init_residual)
    if variation.is_original("projection"):
        original, norm_layer = blocks.BasicBlock if kind == "basic" else blocks.Bottleneck, variation.norm_layer()
        return ResNet(
            original, layers, num_classes, zero_init_residual, groups, width_per_group, stride_on, norm_layer
        )
    shape = Shape(BlockLayers(kind, groups, width_per_group, stride_on), layers, 64, (64, 128, 256, 512), "projection")
    return imagenet_net(shape, variation, num_classes, zero_init_residual)
