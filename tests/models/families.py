"""A small member of every family of networks, and one training step of it."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch.nn import functional as F

from resnet_fused import models
from resnet_fused.models.resnet import ResNet
from resnet_fused.models.vgg import VGG
from resnet_fused.modules import Bottleneck

NAMES = [name for name in models.list_models() if name in torchvision.models.list_models()]
# The deep ones take a second each even where nothing is computed.
TORCHVISIONS = [pytest.param(n, marks=pytest.mark.slow if "101" in n or "152" in n else ()) for n in NAMES]

# → (network, images' extent, units that must run fused in a call)
FAMILIES = {
    "bottlenecks v1.5": lambda: (ResNet(Bottleneck, (1, 2, 1, 1), 10), 48, 6),
    "bottlenecks v1": lambda: (ResNet(Bottleneck, (1, 1, 1, 1), 10, stride_on="1x1"), 48, 5),
    "resnext": lambda: (ResNet(Bottleneck, (1, 1, 1, 1), 10, groups=32, width_per_group=4), 48, 5),
    "wide": lambda: (ResNet(Bottleneck, (1, 1, 1, 1), 10, width_per_group=128), 48, 5),
    "cifar resnet": lambda: (models.create("resnet20"), 32, 10),
    "cifar plain": lambda: (models.create("plain20"), 32, 4),
    "plain": lambda: (models.create("plain18", num_classes=10), 48, 5),
    "vgg with batch norm": lambda: (VGG(((8, 8), (12, 12, 12), (16,)), True, 10, hidden=24), 32, 3),
    "vgg": lambda: (VGG(((8, 8), (12, 12, 12), (16,)), False, 10, hidden=24), 32, 0),
}


def build(name):
    """In float64, its batch norms and biases as after some training."""
    torch.manual_seed(0)
    model, size, units = FAMILIES[name]()
    generator = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
            module.running_mean.uniform_(-0.1, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            torch.nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
    return model.double(), size, units


def images(size, batch=4, dtype=torch.float64):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def step(model, x):
    """One forward and backward pass → named tensors: output, gradients of x and the parameters, buffers."""
    x = x.detach().requires_grad_()
    torch.manual_seed(3)  # of dropout
    out = model(x)
    F.cross_entropy(out, torch.arange(len(x)) % out.shape[1]).backward()
    tensors = {"output": out.detach(), "gradient of the input": x.grad}
    tensors.update((f"gradient of {name}", p.grad) for name, p in model.named_parameters())
    tensors.update((name, b.clone()) for name, b in model.named_buffers())
    return tensors
