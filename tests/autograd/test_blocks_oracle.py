"""Whole modules in float32 and in 16 bits: outputs, gradients, running statistics, by the oracle bound against eager."""

import copy
import math

import cuda_emulated
import pytest
import torch
from operator_cases import FORMATS, HALVES_EVERYDAY
from problems import BLOCKS
from tolerance import assert_bit_equal, assert_oracle, eager_in_16_bits, max_error, stored_rounding
from torch import nn

import resnet_fused

KINDS = {
    "conv_bn_act": resnet_fused.ConvBNAct,
    "basic": resnet_fused.BasicBlock,
    "bottleneck": resnet_fused.Bottleneck,
    "textbook_basic": resnet_fused.textbook.BasicBlock,
    "textbook_bottleneck": resnet_fused.textbook.Bottleneck,
}
PROBLEMS = {p.id: p for p in BLOCKS}
# float32 errors of these sums are some 1e-6; no ReLU argument comes nearer to 0 than ten times that.
FLOAT32_MARGIN = 1e-5
# bfloat16 rounds z to about 2^-8·|z|, a few of them add up; channels are kept wholly on or off (see _separate).
HALF_MARGIN = 0.25


def _make(problem, training):
    module = KINDS[problem.kind](*problem.arguments).double()
    with torch.no_grad():
        for bn in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            bn.weight.normal_(1, 0.3)
            bn.bias.normal_(0, 0.5)
            bn.running_mean.normal_(0, 0.3)
            bn.running_var.uniform_(0.5, 1.5)
    return module.train(training)


def _separate(module):
    """Every batch norm's channels become wholly positive or wholly negative, so that no mask depends on rounding."""
    with torch.no_grad():
        for bn in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            bn.weight.uniform_(0.2, 0.4)
            bn.bias.copy_(3 * (1 - 2.0 * torch.arange(len(bn.bias)).remainder(2)))


def _distance(module, x):
    """Smallest |argument| of any ReLU in the eager forward."""
    smallest = []

    def look(_, inputs):
        smallest.append(inputs[0].abs().min().item())

    handles = [m.register_forward_pre_hook(look) for m in module.modules() if isinstance(m, nn.ReLU)]
    real = torch.relu
    torch.relu = lambda z: (look(None, (z,)), real(z))[1]  # the textbook blocks' last one is a function
    try:
        with torch.no_grad(), resnet_fused.backend("eager"):
            copy.deepcopy(module)(x)
    finally:
        torch.relu = real
        for handle in handles:
            handle.remove()
    assert len(smallest) >= 1
    return min(smallest)


def _draw(problem, training, margin, scale=1.0, prepare=lambda module: None, dtype=torch.float32):
    for seed in range(200):
        torch.manual_seed(seed)
        module = _make(problem, training)
        prepare(module)
        x = scale * torch.randn(problem.size, dtype=torch.float64)
        # What the other precision sees, exactly: its inputs are not rounded again.
        with torch.no_grad():
            for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point()), x):
                tensor.copy_(tensor.to(dtype))
        if _distance(module, x) > margin:
            return module, x
    raise AssertionError("no draw keeps clear of the kinks")


def _run(module, x, backend, autocast=None):
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with resnet_fused.backend(backend), resnet_fused.modules.record() as records:
        with torch.autocast(x.device.type, autocast, enabled=autocast is not None):
            out = module(leaf)
    assert all(r.backend == (None if backend == "eager" else backend) for r in records)
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).mul(7).cos().view(out.shape)
    out.backward(cotangent.to(out.device, out.dtype))
    results = {"out": out, "dx": leaf.grad}
    results |= {f"d {name}": p.grad for name, p in module.named_parameters()}
    results |= {name: b for name, b in module.named_buffers() if b.is_floating_point()}
    return results


def _lengths(module, x):
    pixels = x.numel() // x.shape[1]
    return pixels + max(p[0].numel() for p in module.parameters() if p.dim() == 4)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("training", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["train", "eval"])
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("backend", ["cpu", "reference", cuda_emulated.BACKEND])
def test_float32(backend, name, training, layout):
    module, x = _draw(PROBLEMS[name], training, FLOAT32_MARGIN)
    module = module.to(memory_format=FORMATS[layout])
    x = x.contiguous(memory_format=FORMATS[layout])
    single = [copy.deepcopy(module).float() for _ in range(2)]
    truth = _run(copy.deepcopy(module), x, "eager")
    ours, theirs = _run(single[0], x.float(), backend), _run(single[1], x.float(), "eager")
    assert ours["out"].stride() == theirs["out"].stride()
    for key in truth:
        assert_oracle(ours[key], theirs[key], truth[key], _lengths(module, x), key)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("backend", ["cpu", cuda_emulated.BACKEND])
def test_float64(backend, name, training, layout):
    module, x = _draw(PROBLEMS[name], training, 1e-9)
    x = x.contiguous(memory_format=FORMATS[layout])
    ours, theirs = _run(copy.deepcopy(module), x, backend), _run(copy.deepcopy(module), x, "eager")
    for key in theirs:
        # 1e-10 of the largest: float64 sums of some hundred terms, amplified by 1/σ in three batch norms.
        scale = max(1.0, theirs[key].abs().max().item())
        assert max_error(ours[key], theirs[key]) <= 1e-10 * scale, key


@pytest.mark.parametrize("half", HALVES_EVERYDAY, ids=str)
@pytest.mark.parametrize("style", ["converted", "autocast"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("backend", ["cpu", cuda_emulated.BACKEND])
def test_16_bits(backend, name, training, style, half):
    module, x = _draw(PROBLEMS[name], training, HALF_MARGIN, 0.3, _separate, half)
    x = x.contiguous(memory_format=torch.channels_last)
    truth = _run(copy.deepcopy(module), x, "eager")
    dtype, autocast = (half, None) if style == "converted" else (torch.float32, half)
    lower = module.to(dtype)
    ours = _run(copy.deepcopy(lower), x.to(dtype), backend, autocast)
    theirs = eager_in_16_bits(lambda: _run(copy.deepcopy(lower), x.to(dtype), "eager", autocast), truth)
    for key in truth:
        stored = stored_rounding(half, truth[key], x.numel() // x.shape[1])
        assert_oracle(ours[key], theirs[key], truth[key], _lengths(module, x), key, stored=stored)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ["cpu", cuda_emulated.BACKEND])
def test_a_frozen_scale_is_not_rounded_to_16_bits(backend, half):
    """Exact: with one pixel and small integers only the products with the scale are rounded, each once."""
    module = resnet_fused.ConvBNAct(16, 1, 1).eval()
    values = torch.arange(1.0, 17).view(1, 16, 1, 1)
    with torch.no_grad():
        module.conv.weight.copy_(values)
        module.bn.running_var.fill_(0.75)
    module, x = module.to(half), values.to(half).requires_grad_()
    with resnet_fused.backend(backend):
        module(x).backward(torch.ones(1, 1, 1, 1, dtype=half))
    expected = (values / math.sqrt(0.75 + module.bn.eps)).to(half)
    assert_bit_equal(x.grad, expected)
    assert_bit_equal(module.conv.weight.grad, expected)
