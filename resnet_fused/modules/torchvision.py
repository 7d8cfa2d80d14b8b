"""torchvision's ResNet classes where torchvision is installed and works, else stand-ins nobody instantiates."""

from torch import nn

try:
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
    from torchvision.ops.misc import FrozenBatchNorm2d

    INSTALLED = True
except Exception:  # a torchvision built for another torch fails with errors of many types
    INSTALLED = False

    class BasicBlock(nn.Module): ...

    class Bottleneck(nn.Module): ...

    class ResNet(nn.Module): ...

    class FrozenBatchNorm2d(nn.Module): ...
