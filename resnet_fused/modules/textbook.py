"""The residual blocks as textbooks write them: a `residual_function` and a `shortcut`, both nn.Sequential."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resnet_fused.modules.fused import FusedModule
from resnet_fused.modules.members import ConvBN, Members, Obstacle


class _TextbookBlock(FusedModule):
    def members(self) -> Members:
        for child in (self.residual_function, self.shortcut):
            if type(child) is not nn.Sequential:
                raise Obstacle(f"it holds a {type(child).__name__} where a Sequential is fused")
        children = list(self.residual_function)
        if len(children) % 3 != 2 or len(self.shortcut) not in (0, 2):
            raise Obstacle("its children are not convolution, batch norm, ReLU, …, convolution, batch norm")
        main = tuple(ConvBN(*children[i : i + 2]) for i in range(0, len(children), 3))
        projection = (ConvBN(*self.shortcut),) if len(self.shortcut) else ()
        return Members(main, tuple(children[2::3]), projection, (self.residual_function, self.shortcut))

    def identity(self) -> bool:
        return len(self.shortcut) == 0

    def in_place_sum(self) -> bool:
        return False

    def eager_forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.residual_function(x) + self.shortcut(x))


def _conv(in_channels, out_channels, kernel_size, stride=1):
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


def _projection(in_channels, out_channels, stride) -> nn.Sequential:
    """Empty where the input can be added as it is."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(_conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(_TextbookBlock):
    """relu(residual_function(x) + shortcut(x)), two 3×3 convolutions; He et al. 2016, figure 5, left.

    x: [N, in_channels, H, W] → [N, out_channels, H/stride, W/stride].
    """

    expansion = 1

    def __init__(self, in_channels, out_channels, stride=1) -> None:
        super().__init__()
        self.residual_function = nn.Sequential(
            _conv(in_channels, out_channels, 3, stride),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            _conv(out_channels, out_channels, 3),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = _projection(in_channels, out_channels, stride)


class Bottleneck(_TextbookBlock):
    """relu(residual_function(x) + shortcut(x)), 1×1 reduce, 3×3, 1×1 expand; He et al. 2016, figure 5, right.

    x: [N, in_channels, H, W] → [N, 4·out_channels, H/stride, W/stride].
    """

    expansion = 4

    def __init__(self, in_channels, out_channels, stride=1) -> None:
        super().__init__()
        expanded = out_channels * self.expansion
        self.residual_function = nn.Sequential(
            _conv(in_channels, out_channels, 1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            _conv(out_channels, out_channels, 3, stride),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            _conv(out_channels, expanded, 1),
            nn.BatchNorm2d(expanded),
        )
        self.shortcut = _projection(in_channels, expanded, stride)
