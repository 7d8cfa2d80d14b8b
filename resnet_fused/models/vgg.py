"""VGG-16 and VGG-19, with and without batch norm, with torchvision's names."""

from __future__ import annotations

from typing import Sequence

from torch import Tensor, nn

from resnet_fused.models.conv_chain import ConvFeatures
from resnet_fused.models.initialise import initialise

# Channels of the 3×3 convolutions of each stage; a 2×2 max pool of stride 2 ends it. Configurations D and E.
STAGES = {
    16: ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}


class VGG(nn.Module):
    """torchvision.models.VGG whose stages run as one unit each where they have batch norms: same names and draws.

    x: [N, 3, H, W] → [N, num_classes], H and W at least 2 to the number of stages. `features` is flat as torchvision's:
    convolution (with bias), batch norm, ReLU, …, max pool. Without batch norm there is nothing to fuse, and PyTorch's
    layers run. hidden: width of the classifier's two hidden layers. The draws: initialise(), linear layers normal(0,
    0.01²). Simonyan & Zisserman 2015 (Very Deep Convolutional Networks), table 1.
    """

    def __init__(
        self, stages: Sequence[Sequence[int]], batch_norm: bool, num_classes: int = 1000, dropout: float = 0.5,
        hidden: int = 4096,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features = _features(stages, batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(stages[-1][-1] * 7 * 7, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        initialise(self, linear_std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _features(stages: Sequence[Sequence[int]], batch_norm: bool) -> ConvFeatures:
    layers: list[nn.Module] = []
    channels = 3
    for stage in stages:
        for planes in stage:
            layers.append(nn.Conv2d(channels, planes, kernel_size=3, padding=1))
            layers += [nn.BatchNorm2d(planes)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
            channels = planes
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return ConvFeatures(*layers)


def vgg(depth: int, batch_norm: bool, num_classes: int = 1000, dropout: float = 0.5) -> VGG:
    """VGG of 16 or 19 layers."""
    return VGG(STAGES[depth], batch_norm, num_classes, dropout)
