"""torchvision's two residual blocks, fused: same constructor, children, draws and state_dict."""

from __future__ import annotations

from torch import Tensor, nn

from resnet_fused.modules import torchvision as tv
from resnet_fused.modules.fused import FusedModule
from resnet_fused.modules.members import ConvBN, Members, Obstacle


def padded_conv(in_channels, out_channels, kernel_size, stride=1, groups=1, dilation=1):
    padding = dilation * (kernel_size // 2)
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)


class _TorchvisionBlock(FusedModule):
    """A block with children conv1, bn1, … convN, bnN, relu and downsample."""

    depth: int
    names: tuple[tuple[str, str], ...]  # of the main branch's convolutions and batch norms
    eager_class: type

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        cls.names = tuple((f"conv{i}", f"bn{i}") for i in range(1, cls.depth + 1))

    def members(self) -> Members:
        main = tuple([ConvBN(getattr(self, conv), getattr(self, bn)) for conv, bn in self.names])
        downsample = self.downsample
        if downsample is None:
            return Members(main, (self.relu,))
        if type(downsample) is not nn.Sequential or len(downsample) != 2:
            raise Obstacle("its downsample is not a convolution and a batch norm")
        return Members(main, (self.relu,), (ConvBN(*downsample),), (downsample,))

    def identity(self) -> bool:
        return self.downsample is None

    def eager_forward(self, x: Tensor) -> Tensor:
        out = x
        for i in range(1, self.depth + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            if i < self.depth:
                out = self.relu(out)
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class BasicBlock(_TorchvisionBlock, tv.BasicBlock):
    """torchvision.models.resnet.BasicBlock, fused: out = relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)).

    x: [N, inplanes, H, W] float32, float64, bfloat16 or float16 → [N, planes, H/stride, W/stride]; shortcut: x, or
    `downsample`. Errors are eager's. He et al. 2016 (Deep Residual Learning), figure 5, left.
    """

    expansion: int = 1
    depth = 2
    eager_class = tv.BasicBlock

    def __init__(
        self, inplanes, planes, stride=1, downsample=None, groups=1, base_width=64, dilation=1, norm_layer=None
    ) -> None:
        nn.Module.__init__(self)
        if norm_layer is None:
            norm_layer = nn.BatchNorm2d
        if groups != 1 or base_width != 64:
            raise ValueError("BasicBlock only supports groups=1 and base_width=64")
        if dilation > 1:
            raise NotImplementedError("Dilation > 1 not supported in BasicBlock")
        self.conv1 = padded_conv(inplanes, planes, 3, stride)
        self.bn1 = norm_layer(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = padded_conv(planes, planes, 3)
        self.bn2 = norm_layer(planes)
        self.downsample = downsample
        self.stride = stride


class Bottleneck(_TorchvisionBlock, tv.Bottleneck):
    """torchvision.models.resnet.Bottleneck, fused: 1×1 reduce, 3×3 (with the stride), 1×1 expand, and the shortcut.

    x: [N, inplanes, H, W] float32, float64, bfloat16 or float16 → [N, 4·planes, H/stride, W/stride]. Errors are
    eager's. He et al. 2016 (Deep Residual Learning), figure 5, right.
    """

    expansion: int = 4
    depth = 3
    eager_class = tv.Bottleneck

    def __init__(
        self, inplanes, planes, stride=1, downsample=None, groups=1, base_width=64, dilation=1, norm_layer=None
    ) -> None:
        nn.Module.__init__(self)
        if norm_layer is None:
            norm_layer = nn.BatchNorm2d
        width = int(planes * (base_width / 64.0)) * groups
        self.conv1 = padded_conv(inplanes, width, 1)
        self.bn1 = norm_layer(width)
        self.conv2 = padded_conv(width, width, 3, stride, groups, dilation)
        self.bn2 = norm_layer(width)
        self.conv3 = padded_conv(width, planes * self.expansion, 1)
        self.bn3 = norm_layer(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride
