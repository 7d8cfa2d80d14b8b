"""Convolution, batch norm and ReLU as one module."""

from __future__ import annotations

from torch import Tensor, nn

from resnet_fused.modules.fused import FusedModule
from resnet_fused.modules.members import ConvBN, Members, Obstacle


class ConvBNAct(FusedModule):
    """relu(bn(conv(x))), or bn(conv(x)) with relu=False, as one unit; children conv, bn and act.

    x: [N, in_channels, H, W] float32, float64, bfloat16 or float16 → [N, out_channels, P, Q], with the padding that
    keeps H and W at stride 1 unless given. Errors are eager's. Ioffe & Szegedy 2015 (Batch Normalization), section 3.2.
    """

    def __init__(
        self, in_channels, out_channels, kernel_size=3, stride=1, padding=None, dilation=1, groups=1, relu=True,
        norm_layer=None,
    ) -> None:  # fmt: skip
        super().__init__()
        if padding is None:
            padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False
        )
        self.bn = (norm_layer or nn.BatchNorm2d)(out_channels)
        self.act = nn.ReLU(inplace=True) if relu else nn.Identity()

    def members(self) -> Members:
        if type(self.act) not in (nn.ReLU, nn.Identity):
            raise Obstacle(f"its activation is a {type(self.act).__name__}")
        relu = (self.act,) if self.final_relu() else ()
        return Members((ConvBN(self.conv, self.bn),), relu, containers=() if relu else (self.act,))

    def final_relu(self) -> bool:
        return type(self.act) is nn.ReLU

    def eager_forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))
