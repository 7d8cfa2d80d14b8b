"""Whole networks of fused units, by name: ResNets for ImageNet and CIFAR-10, their plain twins, and VGG."""

from resnet_fused.models.conv_chain import ConvChain, ConvFeatures
from resnet_fused.models.count import Layer, layers
from resnet_fused.models.registry import create, entry, list_models

__all__ = ["ConvChain", "ConvFeatures", "Layer", "create", "entry", "layers", "list_models"]
