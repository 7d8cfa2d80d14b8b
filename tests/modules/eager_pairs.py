"""torchvision's block and the fused one side by side: the same weights, the same action, everything compared."""

from __future__ import annotations

import copy

import torch
import torchvision.models.resnet as tv
from torch import nn

from resnet_fused.modules import record
from resnet_fused.surgery import fuse

# Float64: both sides evaluate the same equations and differ in the order of their sums alone, some 1e-15 per term;
# a division by a batch's std and sums of up to a thousand terms leave four orders of magnitude to spare.
TOLERANCE = 1e-10


def _projection(inplanes, planes, stride):
    conv = nn.Conv2d(inplanes, planes, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(planes))


def _stem():
    """A torchvision ResNet cut down to its stem."""
    model = tv.ResNet(tv.BasicBlock, [1, 1, 1, 1])
    for name in ("layer1", "layer2", "layer3", "layer4", "avgpool", "fc"):
        setattr(model, name, nn.Identity())
    return model


BUILDERS = {
    "basic": lambda: tv.BasicBlock(8, 8),
    "basic_projection": lambda: tv.BasicBlock(8, 12, 2, _projection(8, 12, 2)),
    "bottleneck": lambda: tv.Bottleneck(8, 2),
    "bottleneck_projection": lambda: tv.Bottleneck(8, 4, 2, _projection(8, 16, 2), groups=2, base_width=64),
    "stem": _stem,
}
KINDS = tuple(BUILDERS)
BLOCKS = KINDS[:4]


def batch_norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def randomize(module, seed=0):
    """Batch norms as after some training: no channel alike, no statistic at its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for bn in batch_norms(module):
            for tensor, low, high in ((bn.weight, 0.5, 1.5), (bn.bias, -0.5, 0.5)):
                if tensor is not None:
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
            if bn.running_mean is not None:
                bn.running_mean.copy_(torch.randn(bn.running_mean.shape, generator=generator) * 0.1)
                bn.running_var.copy_(torch.rand(bn.running_var.shape, generator=generator) + 0.5)
    return module


def pair(kind="basic", dtype=torch.float64):
    """→ (eager, fused): equal weights and buffers, training mode."""
    torch.manual_seed(7)
    eager = randomize(BUILDERS[kind]().to(dtype))
    return eager, fuse(copy.deepcopy(eager))


def image(kind="basic", dtype=torch.float64, batch=3, size=6, seed=1):
    channels = 3 if kind == "stem" else 8
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, size, size, generator=generator, dtype=torch.float64).to(dtype)


def buffers(module):
    return {name: b.detach().clone() for name, b in module.named_buffers()}


def step(module, x, grad_out=None):
    """One forward and backward → y, dx, gradients of the parameters, buffers afterwards."""
    x = x.detach().requires_grad_()
    y = module(x)
    wanted = [p for p in module.parameters() if p.requires_grad]
    if grad_out is None:
        generator = torch.Generator().manual_seed(3)
        grad_out = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)
    elif callable(grad_out):
        grad_out = grad_out(y)
    gradients = torch.autograd.grad(y, [x, *wanted], grad_out)
    return {"y": y.detach(), "dx": gradients[0], "dp": gradients[1:], "buffers": buffers(module)}


def outcome(action, module):
    """What an action on a module came to: its result, or the type and the words of its exception."""
    try:
        return action(module)
    except Exception as error:
        return type(error), str(error)


def assert_same(ours, eager, tolerance=TOLERANCE, strides=False, path="result"):
    """Trees of tensors and values, equal; tensors within `tolerance` of the largest finite value."""
    assert type(ours) is type(eager), f"{path}: {ours!r:.1000} against eager's {eager!r:.1000}"
    if isinstance(eager, torch.Tensor):
        assert ours.dtype == eager.dtype and ours.shape == eager.shape, path
        if strides:
            assert ours.stride() == eager.stride(), f"{path}: strides {ours.stride()}, eager's {eager.stride()}"
        if not eager.is_floating_point():
            assert torch.equal(ours, eager), path
            return
        scale = eager[eager.isfinite()].abs().max().item() if eager.isfinite().any() else 0.0
        close = torch.allclose(ours, eager, rtol=tolerance, atol=tolerance * max(scale, 1.0), equal_nan=True)
        assert close, f"{path}: off by {(ours - eager).abs().max().item():.3g} at scale {scale:.3g}"
    elif isinstance(eager, dict):
        assert ours.keys() == eager.keys(), path
        for key in eager:
            assert_same(ours[key], eager[key], tolerance, strides, f"{path}[{key!r}]")
    elif isinstance(eager, (tuple, list)):
        assert len(ours) == len(eager), path
        for i, (a, b) in enumerate(zip(ours, eager)):
            assert_same(a, b, tolerance, strides, f"{path}[{i}]")
    else:
        assert ours == eager, f"{path}: {ours!r} against eager's {eager!r}"


def compare(action, modules, runs="cpu", raises=None, **options):
    """Does `action` to the eager module and to the fused one: same outcome, same buffers → eager's outcome.

    runs: where the fused module must have run, every time: "cpu", or None for its eager forward. raises: the kind of
    exception both must raise, of equal type and words, our buffers left bit for bit as they were.
    """
    eager, fused = modules
    before = buffers(fused)
    expected = outcome(action, eager)
    with record() as records:
        result = outcome(action, fused)
    assert records, "the fused module was never called"
    assert {r.backend for r in records} == {runs}, [r[1:] for r in records]
    failed = isinstance(expected, tuple) and expected and isinstance(expected[0], type)
    assert failed == (raises is not None), str(expected)[:1000]
    if raises is None:
        assert_same(result, expected, **options)
        assert_same(buffers(fused), buffers(eager), options.get("tolerance", TOLERANCE), path="buffers")
    else:
        assert issubclass(expected[0], raises), expected
        assert result == expected
        for name, value in buffers(fused).items():
            assert torch.equal(value, before[name]), f"{name} was modified before the exception"
    return expected


def errors_against_float64(action, kind, dtype, prepare=lambda module: module):
    """Largest errors of ours and of eager's against float64, per tensor of step's result, as two flat lists."""
    oracle, _ = pair(kind, dtype)
    _, fused = pair(kind, dtype)
    eager, _ = pair(kind, dtype)
    truth = _flat(action(prepare(oracle).double(), torch.float64))
    with record() as records:
        ours = _flat(action(prepare(fused), dtype))
    assert {r.backend for r in records} == {"cpu"}, [r[1:] for r in records]
    theirs = _flat(action(prepare(eager), dtype))
    for a, b in zip(ours, theirs):
        assert a.dtype == b.dtype
    errors = [[(t.double() - exact).abs().max().item() for t, exact in zip(side, truth)] for side in (ours, theirs)]
    return (*errors, [t.abs().max().item() for t in truth])


def _flat(result):
    if isinstance(result, torch.Tensor):
        return [result] if result.is_floating_point() else []
    values = result.values() if isinstance(result, dict) else result
    return [t for value in values for t in _flat(value)]


