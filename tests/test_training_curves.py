"""Training ResNet-56 on digits for 200 steps, fused against its eager twin: the loss curves."""

import copy

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

import resnet_fused
from resnet_fused import models
from resnet_fused.modules import record

STEPS, BATCH, UNITS = 200, 16, 28  # units: 27 blocks and the stem


def digits(dtype):
    """STEPS batches of handwritten digits at their own 8x8, in three channels, in order and round again."""
    data = load_digits()
    which = torch.arange(STEPS * BATCH) % len(data.target)
    x = torch.tensor(data.images, dtype=torch.float64)[which, None] / 16
    return x.expand(-1, 3, -1, -1).to(dtype).split(BATCH), torch.tensor(data.target)[which].split(BATCH)


def network(dtype):
    torch.manual_seed(0)
    return models.create("resnet56").to(dtype=dtype, memory_format=torch.channels_last)


def losses(model, batches, backend="eager"):
    """SGD with momentum, at the rate of the tests of ten steps → the loss of each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    curve = []
    with resnet_fused.backend(backend), record() as records:
        for x, target in zip(*batches):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), target)
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
    expected = None if backend == "eager" else "cpu"
    assert [r.backend for r in records] == [expected] * (STEPS * UNITS)
    return torch.tensor(curve, dtype=torch.float64)


def moved(x, seed):
    """Each value to one of its two neighbours in its dtype."""
    generator = torch.Generator().manual_seed(seed)
    signs = (torch.rand(batch.shape, generator=generator) < 0.5 for batch in x)
    return [torch.nextafter(batch, torch.where(sign, -torch.inf, torch.inf).to(batch.dtype)) for batch, sign in zip(x, signs)]
