"""create()'s options of residual networks: what is built, which names there are, and the fused step against eager's."""

import copy

import pytest
import torch
import torchvision
from families import images, step
from test_against_eager import worst
from torch import nn

import resnet_fused
from resnet_fused import models
from resnet_fused.models.cifar import PaddedBlock, cifar_preresnet, cifar_resnet
from resnet_fused.models.count import layers
from resnet_fused.models.resnet import ResNet, imagenet_resnet
from resnet_fused.models.staged import StagedNet
from resnet_fused.modules import ORDERINGS, BasicBlock, NormAct, PreactivationBlock, ResidualBlock, record
from resnet_fused.modules.shortcuts import SHORTCUTS, ShortcutOnlyGating


def on_meta(name, **options):
    with torch.device("meta"):
        return models.create(name, **options)


def blocks(model):
    return [m for m in model.modules() if isinstance(m, ResidualBlock)]


@pytest.mark.parametrize("name", ("resnet18", "resnet20", "resnext50_32x4d"))
def test_defaults_are_what_they_were(name):
    """The names, the draws and the classes of networks without options; torchvision's are tested elsewhere."""
    shortcut = "padded" if name == "resnet20" else "projection"
    torch.manual_seed(0)
    plain = models.create(name, num_classes=10)
    torch.manual_seed(0)
    spelled = models.create(name, 10, block="original", shortcut=shortcut, norm="batch", se=False, stochastic_depth=0.0)
    assert type(plain) is type(spelled) is (StagedNet if name == "resnet20" else ResNet) and not blocks(plain)
    assert plain.state_dict().keys() == spelled.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), spelled.state_dict().values()))


@pytest.mark.parametrize("option, words", (
    ({"block": "preact"}, "block='preact': expected one of original, bn_after_add, relu_before_add, "),
    ({"shortcut": "identity"}, "shortcut='identity': expected one of projection, padded, average_pool, convolution,"),
    ({"norm": "layer"}, "norm='layer': expected one of batch, frozen, sync"),
    ({"stochastic_depth": 1.0}, "stochastic_depth=1.0: expected at least 0 and below 1"),
    ({"block": "preactivation", "zero_init_residual": True}, "the last batch norm does not end the branch"),
))  # fmt: skip
def test_names_that_are_none(option, words):
    for name in ("resnet18", "resnet20"):
        with pytest.raises(ValueError) as error:
            on_meta(name, **option)
        assert words in str(error.value)


def test_options_that_a_network_does_not_have():
    for name, option in (("plain34", "block"), ("vgg16", "norm"), ("preresnet164", "block")):
        with pytest.raises(TypeError, match=option):
            on_meta(name, **{option: "original"})


@pytest.mark.parametrize("name", ("resnet18", "resnet50", "resnet20"))
def test_norms(name):
    frozen = on_meta(name, norm="frozen")
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in frozen.modules())
    layers_of = {norm: [n for n, m in on_meta(name, norm=norm).named_modules() if isinstance(m, kind)]
                 for norm, kind in (("batch", nn.BatchNorm2d), ("sync", nn.SyncBatchNorm),
                                    ("frozen", torchvision.ops.FrozenBatchNorm2d))}  # fmt: skip
    assert layers_of["batch"] == layers_of["sync"] == layers_of["frozen"] and len(layers_of["batch"]) > 15
    assert type(frozen) is type(on_meta(name))


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("name", ("resnet18", "resnet20", pytest.param("resnet50", marks=pytest.mark.slow)))
def test_every_shortcut_is_built_where_it_belongs(name, ordering):
    for shortcut in SHORTCUTS:
        model = on_meta(name, block=ordering, shortcut=shortcut, num_classes=7)
        found = blocks(model)
        if not found:  # the original network
            assert ordering == "original" and shortcut == ("padded" if name == "resnet20" else "projection")
            continue
        assert all(type(b) is ORDERINGS[ordering] for b in found)
        assert len(found) == {"resnet18": 8, "resnet50": 16, "resnet20": 9}[name]
        changing = {"resnet18": 3, "resnet50": 4, "resnet20": 2}[name]
        assert sum(b.shortcut is not None for b in found) == (len(found) if shortcut == "convolution" else changing)
        assert all((b.gate is None) == (SHORTCUTS[shortcut].gate is None) for b in found)
        padded = shortcut == "padded" or (SHORTCUTS[shortcut].change is None and name == "resnet20")
        assert sum(type(b.shortcut).__name__ == "ZeroPadding" for b in found) == (changing if padded else 0)
        assert list(model.modules())[-1].out_features == 7


def test_where_pre_activation_begins_and_ends():
    """Behind an ImageNet stem x is activated; behind a CIFAR stem the first block does it. Both end in bn and ReLU."""
    deep, small = on_meta("resnet50", block="preactivation"), on_meta("resnet20", block="preactivation")
    assert blocks(deep)[0].bn1 is None and blocks(deep)[1].bn1 is not None
    assert type(small.stem) is nn.Conv2d and blocks(small)[0].bn1.num_features == 16
    assert type(deep.last) is type(small.last) is NormAct and deep.last.bn.num_features == 2048
    assert type(on_meta("resnet20", block="relu_preactivation").last) is nn.ReLU
    assert on_meta("resnet20", block="bn_after_add").last is None


def test_stochastic_depth_rises_linearly():
    rates = [b.stochastic_depth for b in blocks(on_meta("resnet18", stochastic_depth=0.4))]
    assert rates == pytest.approx([0.05 * i for i in range(1, 9)])


def test_squeeze_and_excitation_adds_what_the_paper_counts():
    """Hu et al. 2018, section 4: 2/r·Σ N_s·C_s² weights, some 2.5 million for ResNet-50, besides biases."""
    plain, excited = (sum(p.numel() for p in on_meta("resnet50", **o).parameters()) for o in ({}, {"se": True}))
    widths = ((256, 3), (512, 4), (1024, 6), (2048, 3))
    weights = sum(2 * count * c * c // 16 for c, count in widths)
    assert excited - plain == weights + sum(count * (c + c // 16) for c, count in widths)
    assert round(weights / 1e6, 1) == 2.5


def test_preresnet():
    """Bottlenecks of 16, 32 and 64 planes that halve in their first 1×1."""
    model = on_meta("preresnet164")
    found = blocks(model)
    assert len(found) == 54 and all(type(b) is PreactivationBlock for b in found)
    assert [b.conv1.stride for b in found].count((2, 2)) == 2 and all(b.conv2.stride == (1, 1) for b in found)
    assert [type(b.shortcut) for b in found].count(nn.Conv2d) == 3
    rows = layers(model, (1, 3, 32, 32))
    assert sum(row.kind in ("conv", "linear") and not row.in_shortcut for row in rows) == 164
    for depth in (2, 21, 163):
        with pytest.raises(ValueError, match=f"9n \\+ 2 layers: 11, 20, 29, …; not {depth}"):
            cifar_preresnet(depth)


def test_draws_leave_the_gates_shut():
    model = models.create("resnet20", shortcut="shortcut_gating")
    gates = [m for m in model.modules() if isinstance(m, ShortcutOnlyGating)]
    assert len(gates) == 9 and all(g.conv.bias.eq(-6).all() for g in gates)


def test_zero_init_residual():
    model = models.create("resnet20", block="relu_preactivation", zero_init_residual=True)
    assert all(b.bn2.weight.eq(0).all() and b.bn1.weight.eq(1).all() for b in blocks(model))
    with pytest.raises(ValueError, match="a frozen batch norm would stay zero"):
        models.create("resnet20", norm="frozen", zero_init_residual=True)


NETWORKS = {
    "bn_after_add": lambda: cifar_resnet(8, block="bn_after_add", shortcut="average_pool"),
    "relu_before_add": lambda: cifar_resnet(8, block="relu_before_add"),
    "relu_preactivation": lambda: cifar_resnet(8, block="relu_preactivation", shortcut="convolution"),
    "preactivation": lambda: cifar_resnet(8, block="preactivation"),
    "preresnet": lambda: cifar_preresnet(11),
    "all at once": lambda: cifar_resnet(
        8, block="preactivation", shortcut="exclusive_gating", se=True, stochastic_depth=0.5
    ),
    "frozen": lambda: cifar_resnet(8, norm="frozen"),
    "imagenet": lambda: imagenet_resnet("basic", (1, 1, 1, 1), 10, block="preactivation", shortcut="scaling"),
}


@pytest.mark.parametrize("mode", ("train", "eval"))
@pytest.mark.parametrize("name", NETWORKS)
def test_step(name, mode):
    """Outputs, every gradient and every buffer within 1e-9 of eager's: see test_against_eager."""
    torch.manual_seed(0)
    fused = NETWORKS[name]().double().train(mode == "train")
    generator = torch.Generator().manual_seed(2)
    for module in fused.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
    twin, x = copy.deepcopy(fused), images(48 if name == "imagenet" else 16, batch=3)
    with record() as records:
        ours = step(fused, x)
    assert records and {r.backend for r in records} == {"cpu"}
    with resnet_fused.backend("eager"):
        theirs = step(twin, x)
    difference = worst(ours, theirs)
    assert difference[0] <= 1e-9, difference


def test_explain_names_the_blocks():
    table = resnet_fused.explain(cifar_resnet(8, block="preactivation"), images(16, 2, torch.float32))
    assert not table.left_alone and {"layer1.0", "layer2.0", "last"} <= {row.name for row in table.fused}
    # A projection is within its block's unit, or a unit of its own.
    for ordering, alone in (("relu_preactivation", False), ("relu_before_add", True)):
        table = resnet_fused.explain(cifar_resnet(8, block=ordering, shortcut="projection"), images(16, 2, torch.float32))
        assert not table.left_alone and ("layer2.0.shortcut" in {row.name for row in table.fused}) == alone


def test_padded_blocks_take_a_norm():
    model = models.create("resnet20", norm="sync")
    norms = [m for m in model.modules() if isinstance(m, (BasicBlock, PaddedBlock))]
    assert len(norms) == 9 and all(isinstance(b.bn1, nn.SyncBatchNorm) for b in norms)
