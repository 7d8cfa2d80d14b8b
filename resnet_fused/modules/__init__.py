"""Drop-in modules: children, parameters and buffers as in torchvision, arithmetic in the layers below."""

from resnet_fused.modules import shortcuts, textbook
from resnet_fused.modules.blocks import BasicBlock, Bottleneck
from resnet_fused.modules.branch_options import SqueezeExcitation
from resnet_fused.modules.conv_bn_act import ConvBNAct
from resnet_fused.modules.fused import FusedModule, Record, record
from resnet_fused.modules.preactivation import NormAct
from resnet_fused.modules.residual import (
    ORDERINGS,
    BlockLayers,
    BlockOptions,
    NormAfterAdditionBlock,
    OriginalBlock,
    PreactivationBlock,
    ReluBeforeAdditionBlock,
    ReluPreactivationBlock,
    ResidualBlock,
)

__all__ = [
    "BasicBlock", "BlockLayers", "BlockOptions", "Bottleneck", "ConvBNAct", "FusedModule", "NormAct",
    "NormAfterAdditionBlock", "ORDERINGS", "OriginalBlock", "PreactivationBlock", "Record", "ReluBeforeAdditionBlock",
    "ReluPreactivationBlock", "ResidualBlock", "SqueezeExcitation", "record", "shortcuts", "textbook",
]  # fmt: skip
