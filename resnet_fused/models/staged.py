"""Networks of a stem, stages, global average pooling and one linear layer."""

from __future__ import annotations

from typing import Sequence

from torch import Tensor, nn

from resnet_fused.models.initialise import initialise
from resnet_fused.modules import FusedModule
from resnet_fused.modules.members import ConvBN, Members
from resnet_fused.modules.stages import run_stages


class Stem(FusedModule):
    """maxpool(relu(bn(conv(x)))) as one unit: 7×7 with stride 2 to 64 channels, 3×3 pool with stride 2.

    x: [N, 3, H, W] → [N, 64, H/4, W/4]. He et al. 2016, table 1, conv1.
    """

    def __init__(self, norm_layer=None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = (norm_layer or nn.BatchNorm2d)(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def members(self) -> Members:
        return Members((ConvBN(self.conv1, self.bn1),), (self.relu,), pool=self.maxpool)

    def eager_forward(self, x: Tensor) -> Tensor:
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))


class StagedNet(nn.Module):
    """fc(mean over the image of last(layerN(… layer1(stem(x)) …))); children stem, layer1 … layerN, last, avgpool, fc.

    x: [N, 3, H, W] → [N, num_classes]; `channels`: of the last stage; last: what follows it, if anything. The draws:
    initialise().
    """

    def __init__(
        self, stem: nn.Module, stages: Sequence[nn.Module], channels: int, num_classes: int,
        zero_init_residual: bool = False, last: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = stem
        self._stages = [f"layer{i}" for i in range(1, len(stages) + 1)]
        for name, stage in zip(self._stages, stages):
            self.add_module(name, stage)
        self.last = last
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, num_classes)
        initialise(self, zero_init_residual)

    def forward(self, x: Tensor) -> Tensor:
        x = run_stages(self.stem(x), [getattr(self, name) for name in self._stages], self)
        x = x if self.last is None else self.last(x)
        return self.fc(self.avgpool(x).flatten(1))
