"""fuse and unfuse: a module changes its class and nothing else, so parameters, hooks and references all stay."""

from __future__ import annotations

import warnings

from torch import nn

from resnet_fused.models.resnet import ResNet
from resnet_fused.modules import blocks, resnet

_FUSED_CLASSES = (blocks.BasicBlock, blocks.Bottleneck, resnet.ResNet, ResNet)  # fuse() puts in the first that fits


def why_not(module: nn.Module) -> str | None:
    """Why fuse() leaves a module alone that looks like a torchvision block or ResNet; None for all others."""
    for fused in _FUSED_CLASSES:
        eager = fused.eager_class
        if isinstance(module, eager) and type(module) not in (eager, *_FUSED_CLASSES):
            return f"{type(module).__name__} is a subclass of torchvision's {eager.__name__} and may compute otherwise"
        if type(module) is eager and ("forward" in module.__dict__ or "_forward_impl" in module.__dict__):
            return "its forward was replaced on the instance"
    return None


def fuse(model: nn.Module) -> nn.Module:
    """Fuses every torchvision BasicBlock and Bottleneck, and every torchvision ResNet's stem, in place.

    Returns `model` itself. Modules keep their identity, children, parameters, buffers, hooks and state_dict; only
    their class changes, to a subclass of torchvision's. Fusing twice changes nothing. Warns where there was nothing
    to fuse. explain(model, x) says what each unit will run and which units were left alone.
    """
    found = False
    for module in model.modules():
        for fused in _FUSED_CLASSES:
            if type(module) is fused.eager_class and why_not(module) is None:
                module.__class__ = fused
            found |= type(module) is fused
    if not found:
        warnings.warn(f"{type(model).__name__} holds no torchvision ResNet blocks: nothing was fused", stacklevel=2)
    return model


def unfuse(model: nn.Module) -> nn.Module:
    """Undoes fuse() in place and returns `model`; natively built fused blocks become torchvision's too.

    Raises ImportError, changing nothing, where torchvision is not there to provide the classes.
    """
    modules = [module for module in model.modules() if type(module) in _FUSED_CLASSES]
    if modules and not blocks.tv.INSTALLED:
        raise ImportError("unfuse needs torchvision for the blocks it puts back: pip install torchvision")
    for module in modules:
        module.__class__ = type(module).eager_class
    return model
