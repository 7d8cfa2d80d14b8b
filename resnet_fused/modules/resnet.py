"""torchvision's ResNet with a fused stem."""

from __future__ import annotations

from torch import Tensor

from resnet_fused.modules import torchvision as tv
from resnet_fused.modules.fused import FusedModule
from resnet_fused.modules.members import ConvBN, Members
from resnet_fused.modules.stages import run_stages


class ResNet(FusedModule, tv.ResNet):
    """torchvision.models.ResNet whose stem (conv1, bn1, relu, maxpool) runs as one unit; made by fuse()."""

    eager_class = tv.ResNet

    def members(self) -> Members:
        return Members((ConvBN(self.conv1, self.bn1),), (self.relu,), pool=self.maxpool)

    def eager_forward(self, x: Tensor) -> Tensor:
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self._forward_impl(x)

    def _forward_impl(self, x: Tensor) -> Tensor:
        x = self.fused_forward(x)
        x = run_stages(x, (self.layer1, self.layer2, self.layer3, self.layer4), self)
        return self.fc(self.avgpool(x).flatten(1))
