"""Our blocks in torchvision's place: signature, attributes, children, draws, checkpoints, whole models."""

import inspect

import pytest
import torch
import torchvision.models.resnet as tv
from eager_pairs import assert_same, buffers, randomize, step
from torch import nn

import resnet_fused
from resnet_fused.modules import FusedModule, record

CLASSES = ((resnet_fused.BasicBlock, tv.BasicBlock), (resnet_fused.Bottleneck, tv.Bottleneck))


@pytest.mark.parametrize("ours, theirs", CLASSES)
def test_signature_and_class(ours, theirs):
    a, b = (inspect.signature(c.__init__).parameters for c in (ours, theirs))
    assert [(p.name, p.default, p.kind) for p in a.values()] == [(p.name, p.default, p.kind) for p in b.values()]
    assert issubclass(ours, theirs) and issubclass(ours, FusedModule)
    assert ours.expansion == theirs.expansion and ours.__name__ == theirs.__name__
    assert list(inspect.signature(ours.forward).parameters) == list(inspect.signature(theirs.forward).parameters)


ARGUMENTS = {
    "basic": (0, (8, 8), {}),
    "basic strided": (0, (8, 8, 2), {}),
    "basic of group norms": (0, (8, 8), {"norm_layer": lambda c: nn.GroupNorm(2, c)}),
    "bottleneck": (1, (32, 8), {}),
    "bottleneck strided": (1, (32, 8, 2), {}),
    "bottleneck grouped": (1, (32, 8), {"groups": 4, "base_width": 32}),
    "bottleneck wide": (1, (32, 8), {"base_width": 128}),
    "bottleneck dilated": (1, (32, 8), {"dilation": 2}),
}


def build(name):
    index, arguments, options = ARGUMENTS[name]
    modules = []
    for cls in CLASSES[index]:
        torch.manual_seed(3)
        modules.append(cls(*arguments, **options))
    return modules


@pytest.mark.parametrize("name", ARGUMENTS)
def test_children_and_initial_draws(name):
    """The same children in the same order, drawing the same random numbers under the same seed."""
    fused, eager = build(name)
    assert [(n, type(m)) for n, m in fused.named_children()] == [(n, type(m)) for n, m in eager.named_children()]
    assert repr(fused) == repr(eager)
    assert vars(fused).keys() == vars(eager).keys() and fused.stride == eager.stride
    ours, theirs = fused.state_dict(), eager.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_state_dict_both_ways(name):
    fused, eager = build(name)
    randomize(fused, 4)
    assert not eager.load_state_dict(fused.state_dict(), strict=True).missing_keys
    randomize(eager, 5)
    fused.load_state_dict(eager.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(fused.state_dict().values(), eager.state_dict().values()))


NETWORKS = {
    "resnet18": (0, [2, 2, 2, 2], {}),
    "resnet50": (1, [3, 4, 6, 3], {}),
    "resnet50 zero_init_residual": (1, [3, 4, 6, 3], {"zero_init_residual": True}),
    "resnet18 zero_init_residual": (0, [2, 2, 2, 2], {"zero_init_residual": True}),
    "resnet50 dilated": (1, [3, 4, 6, 3], {"replace_stride_with_dilation": [False, True, True]}),
    "resnext50": (1, [3, 4, 6, 3], {"groups": 32, "width_per_group": 4}),
    "wide_resnet50": (1, [3, 4, 6, 3], {"width_per_group": 128}),
}


SLOW = ("resnet50 zero_init_residual", "resnet50 dilated", "wide_resnet50")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in NETWORKS])
def test_torchvision_resnet_of_our_blocks(name):
    """The model of our class: the same weights under the same seed, every block fused, the same answers."""
    index, layers, options = NETWORKS[name]
    models = []
    for block in CLASSES[index]:
        torch.manual_seed(0)
        models.append(tv.ResNet(block, layers, num_classes=10, **options).double().eval())
    fused, eager = models
    ours, theirs = fused.state_dict(), eager.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad(), record() as records:
        # float64 through up to 53 layers in eval: rounding of 1e-16 grows by the layers' gains, 1e-9 is far above it
        assert_same(fused(x), eager(x), tolerance=1e-9)
    assert [r.backend for r in records] == ["cpu"] * sum(layers)


def test_zero_init_residual_is_seen_through_isinstance():
    model = tv.ResNet(resnet_fused.Bottleneck, [1, 1, 1, 1], zero_init_residual=True)
    assert all(not m.bn3.weight.any() for m in model.modules() if isinstance(m, tv.Bottleneck))
    model = tv.ResNet(resnet_fused.BasicBlock, [1, 1, 1, 1], zero_init_residual=True)
    assert all(not m.bn2.weight.any() for m in model.modules() if isinstance(m, tv.BasicBlock))


@pytest.mark.parametrize("name", ("basic", "bottleneck", "bottleneck grouped", "bottleneck wide", "bottleneck dilated"))
def test_natively_built_block_trains_like_eager(name):
    fused, eager = (m.double() for m in build(name))
    x = torch.randn(3, 8 if name.startswith("basic") else 32, 5, 5, dtype=torch.float64)
    with record() as records:
        ours = step(fused, x)
    assert records[0].backend == "cpu"
    assert_same(ours, step(eager, x))


def test_unusual_norm_layer_runs_eager():
    fused, eager = (m.double() for m in build("basic of group norms"))
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    with record() as records:
        assert_same(step(fused, x), step(eager, x))
    assert records[0].backend is None and "GroupNorm" in records[0].reason


@pytest.mark.parametrize("name", ("basic", "bottleneck"))
@pytest.mark.parametrize("backend", ("auto", "cpu", "reference", "eager"))
def test_backends_by_name(name, backend):
    fused, eager = (m.double() for m in build(name))
    x = torch.randn(3, 8 if name == "basic" else 32, 5, 5, dtype=torch.float64)
    with resnet_fused.backend(backend), record() as records:
        ours = step(fused, x)
    assert records[0].backend == {"auto": "cpu", "eager": None}.get(backend, backend)
    assert_same(ours, step(eager, x))
    assert_same(buffers(fused), buffers(eager))


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "graph"])
def test_inference_runs_a_block_in_one_call(grad):
    block, x = resnet_fused.BasicBlock(4, 4).eval(), torch.randn(2, 4, 6, 6)
    with torch.set_grad_enabled(grad), torch.profiler.profile() as profile:
        block(x)
    assert ("resnet_fused::frozen_chains" in {event.key for event in profile.key_averages()}) is not grad
