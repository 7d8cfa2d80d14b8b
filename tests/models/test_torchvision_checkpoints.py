"""Networks with torchvision's names: the same state_dict, both ways, and the same draws."""

import pytest
import torch
import torchvision
from families import NAMES, TORCHVISIONS, images

import resnet_fused
from resnet_fused import models
from resnet_fused.modules import record, resnet


def test_which_names_are_torchvisions():
    assert len(NAMES) == 14


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_names_and_shapes(name):
    """Of every entry of the state_dict, of the parameters in their order, and of the modules."""
    with torch.device("meta"):
        ours, theirs = models.create(name), getattr(torchvision.models, name)()
    described = [[(key, t.shape, t.dtype) for key, t in model.state_dict().items()] for model in (ours, theirs)]
    assert described[0] == described[1]
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]


SLOW = {"resnext50_32x4d", "vgg16", "vgg16_bn"}  # up to 138 million weights, drawn twice


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name in ("resnet18", "resnext50_32x4d", "vgg16", "vgg16_bn")
])  # fmt: skip
def test_draws_and_checkpoints(name):
    """Equal draws from equal seeds, bit for bit; a checkpoint of either loads strictly into the other."""
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)().eval()
    torch.manual_seed(0)
    ours = models.create(name).eval()
    for (key, a), b in zip(theirs.state_dict().items(), ours.state_dict().values()):
        assert torch.equal(a, b), key
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(1.25)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = images(64, batch=2, dtype=torch.float32)
    with torch.no_grad():
        expected, result = theirs(x), ours(x)
    # float32 through at most 50 layers of positive and negative terms: eps · 50, times a gain of 20
    assert (result - expected).abs().max() <= 1000 * torch.finfo(torch.float32).eps * expected.abs().max()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(0.5)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), ours.parameters()))


def test_unfuse_makes_torchvisions_and_fuse_ours():
    torch.manual_seed(0)
    model = models.create("resnet18", num_classes=10).double().eval()
    x = images(32, batch=2)
    with record() as records:
        fused = model(x)
    assert [r.backend for r in records] == ["cpu"] * 9
    assert resnet_fused.unfuse(model) is model and type(model) is torchvision.models.ResNet
    with record() as records:
        eager = model(x)
    assert not records and type(model.layer1[0]) is torchvision.models.resnet.BasicBlock
    assert torch.allclose(fused, eager, rtol=1e-10, atol=1e-10)  # float64 through 18 layers, another order of sums
    assert type(resnet_fused.fuse(model)) is resnet.ResNet
    assert torch.equal(model(x), fused)


def test_fuse_leaves_a_created_network_as_it_is():
    model = models.create("resnet18", num_classes=10)
    assert type(resnet_fused.fuse(model)) is type(models.create("resnet18"))
    rows = resnet_fused.explain(model, images(32, batch=2, dtype=torch.float32)).rows
    assert len(rows) == 9 and {row.backend for row in rows} == {"cpu"}
