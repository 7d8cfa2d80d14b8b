"""Fused convolution + batch norm + ReLU + residual add for ResNets in PyTorch.

    model = resnet_fused.fuse(torchvision.models.resnet50())   # in place; unfuse() undoes it
    print(resnet_fused.explain(model, images))                 # what will run, and why

The layers, each importing only those below it: surgery, modules, autograd, ops, dispatch, backends, kernels.
"""

from resnet_fused.dispatch import BackendUnavailable, backend, set_winograd
from resnet_fused.modules import BasicBlock, Bottleneck, ConvBNAct, textbook
from resnet_fused.surgery import explain, fuse, tune, unfuse

__version__ = "0.1.0"
__all__ = [
    "BackendUnavailable",
    "BasicBlock",
    "Bottleneck",
    "ConvBNAct",
    "backend",
    "explain",
    "fuse",
    "set_winograd",
    "textbook",
    "tune",
    "unfuse",
]
