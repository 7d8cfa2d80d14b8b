"""Residual blocks, one training step of each, against torchvision's: ``pytest benchmarks/``."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet

import resnet_fused

from workloads import BATCH, BLOCKS


def build(module, block):
    """The block in channels_last, with a projection where torchvision's ResNet has one."""
    kind = getattr(module, block.kind)
    outplanes = block.planes * kind.expansion
    downsample = None
    if block.stride != 1 or block.inplanes != outplanes:
        convolution = nn.Conv2d(block.inplanes, outplanes, 1, block.stride, bias=False)
        downsample = nn.Sequential(convolution, nn.BatchNorm2d(outplanes))
    return kind(block.inplanes, block.planes, block.stride, downsample).to(memory_format=torch.channels_last).train()


@pytest.mark.parametrize("side", ["eager", "fused"])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_training_step(timed, block, side):
    torch.manual_seed(0)
    module = build({"eager": resnet, "fused": resnet_fused}[side], block)
    x = torch.randn(BATCH, block.inplanes, block.side, block.side)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    grad = torch.randn_like(module(x))

    def step():
        module.zero_grad(set_to_none=True)
        x.grad = None
        module(x).backward(grad)

    # Forward reads x and writes the result, backward reads its gradient and x and writes x's gradient.
    moved = 3 * x.nbytes + 2 * grad.nbytes
    timed(step, f"{block} training step", moved)


@pytest.mark.parametrize("side", ["eager", "fused"])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_inference(timed, block, side):
    torch.manual_seed(0)
    module = build({"eager": resnet, "fused": resnet_fused}[side], block).eval()
    x = torch.randn(BATCH, block.inplanes, block.side, block.side).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        y = module(x)
        timed(lambda: module(x), f"{block} inference", x.nbytes + y.nbytes)
