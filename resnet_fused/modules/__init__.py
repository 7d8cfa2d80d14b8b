"""Drop-in modules: children, parameters and buffers as in torchvision, arithmetic in the layers below."""

from resnet_fused.modules import textbook
from resnet_fused.modules.blocks import BasicBlock, Bottleneck
from resnet_fused.modules.conv_bn_act import ConvBNAct
from resnet_fused.modules.fused import FusedModule, Record, record

__all__ = ["BasicBlock", "Bottleneck", "ConvBNAct", "FusedModule", "Record", "record", "textbook"]
