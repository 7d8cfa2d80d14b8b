"""Parameters, multiply-adds and kept bytes against the papers' tables, torchvision's documentation, and measurement."""

import functools
import re

import pytest
import torch
import torchvision
from families import TORCHVISIONS, images

import resnet_fused
from resnet_fused import models
from resnet_fused.models.cifar import cifar_preresnet
from resnet_fused.models.count import layers
from resnet_fused.models.resnet import ResNet
from resnet_fused.models.vgg import VGG
from resnet_fused.modules import ORDERINGS, BasicBlock, Bottleneck


@functools.lru_cache(maxsize=None)
def counted(name, size=None, **options):
    with torch.device("meta"):
        model = models.create(name, **options)
    size = size or models.entry(name).image
    rows = layers(model, (1, 3, size, size))
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())
    return rows


def total(rows, field):
    return sum(getattr(row, field) for row in rows)


# He et al. 2016, table 1, in 10^9: the networks as in the paper, with the stride on the first 1×1. Its 3.6 for 34
# layers is that of figure 3, with the shortcuts of option A, which multiply nothing. Its 3.8 for 50 layers is 3.858
# cut off, not rounded: those layers come to no less.
TABLE_1 = (("resnet18", 1.8), ("resnet34", 3.6), ("resnet50", 3.8), ("resnet101", 7.6), ("resnet152", 11.3))


@pytest.mark.parametrize("name, printed", TABLE_1)
def test_multiply_adds_of_table_1(name, printed):
    deep = name in ("resnet50", "resnet101", "resnet152")
    rows = counted(name, **({"stride_on": "1x1"} if deep else {}))
    if name == "resnet34":
        rows = [row for row in rows if not row.in_shortcut]
    giga = total(rows, "multiply_adds") / 1e9
    assert (int(10 * giga) / 10 if name == "resnet50" else round(giga, 1)) == printed


# The exact sums, worked out from table 1's rows: a change by a single layer shows.
@pytest.mark.parametrize("name, options, exact", (
    ("resnet18", {}, 1_814_073_344), ("resnet50", {}, 4_089_184_256), ("resnet50", {"stride_on": "1x1"}, 3_857_973_248),
    ("plain34", {}, 3_644_493_824), ("resnet20", {}, 40_551_040),
))  # fmt: skip
def test_multiply_adds_exactly(name, options, exact):
    assert total(counted(name, **options), "multiply_adds") == exact


def test_a_plain_network_costs_what_the_residual_one_does_without_projections():
    """He et al. 2016, section 3.3: figure 3's middle and right have equal multiply-adds; VGG-19's are 19.6·10^9."""
    plain, residual = counted("plain34"), counted("resnet34")
    assert total(plain, "multiply_adds") == total([r for r in residual if not r.in_shortcut], "multiply_adds")
    assert round(total(counted("vgg19"), "multiply_adds") / 1e9, 1) == 19.6
    assert int(100 * total(plain, "multiply_adds") / total(counted("vgg19"), "multiply_adds")) == 18  # per cent


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_torchvisions_documented_counts(name):
    """To the last parameter, and to the digits of its 10^9 multiply-adds."""
    documented = torchvision.models.get_model_weights(name).DEFAULT.meta
    rows = counted(name)
    assert total(rows, "parameters") == documented["num_params"]
    assert round(total(rows, "multiply_adds") / 1e9, 3) == documented["_ops"]


# He et al. 2016, table 6, in 10^6.
@pytest.mark.parametrize("depth, printed", ((20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7),
                                            pytest.param(1202, 19.4, marks=pytest.mark.slow)))  # fmt: skip
def test_parameters_of_table_6(depth, printed):
    with torch.device("meta"):
        millions = sum(p.numel() for p in models.create(f"resnet{depth}").parameters()) / 1e6
    assert round(millions, 2 if depth < 110 else 1) == printed


# Of other papers, in 10^6 parameters: Simonyan & Zisserman 2015, table 2 (D and E); Xie et al. 2017, table 1;
# Zagoruyko & Komodakis 2016, table 8.
@pytest.mark.parametrize("name, printed, digits", (("vgg16", 138, 0), ("vgg19", 144, 0), ("resnext50_32x4d", 25.0, 1),
                                                   ("wide_resnet50_2", 68.9, 1)))  # fmt: skip
def test_parameters_that_other_papers_print(name, printed, digits):
    assert round(total(counted(name), "parameters") / 1e6, digits) == printed


@pytest.mark.parametrize("name, printed", (("resnet50", 4.1), ("resnext50_32x4d", 4.2)))
def test_multiply_adds_of_resnexts_table_1(name, printed):
    """Xie et al. 2017, in 10^9; both halve on the 3×3 convolutions."""
    assert round(total(counted(name), "multiply_adds") / 1e9, 1) == printed


# He et al. 2016 (Identity Mappings), table 4, in 10^6. Its 10.2 for 1001 layers is without batch norms, which add 0.15.
@pytest.mark.parametrize("depth, printed, norms", ((164, 1.7, 24_224), (1001, 10.2, 149_216)))
def test_parameters_of_pre_activation_networks(depth, printed, norms):
    with torch.device("meta"):
        model = models.create(f"preresnet{depth}")
    by_kind = {True: 0, False: 0}
    for module in model.modules():
        by_kind[isinstance(module, torch.nn.BatchNorm2d)] += sum(p.numel() for p in module.parameters(False))
    assert by_kind[True] == norms and round(by_kind[False] / 1e6, 1) == printed


NAMED = [re.fullmatch(r"(?:preresnet|resnet|plain|vgg)(\d+)(?:_bn)?", name) for name in models.list_models()]
DEPTHS = [(match[0], int(match[1])) for match in NAMED if match and int(match[1]) <= 56]  # deeper ones take seconds


@pytest.mark.parametrize("name, depth", DEPTHS)
def test_depth_is_the_names(name, depth):
    """Layers with weights, projections aside: what the papers count."""
    rows = counted(name, size=32)
    assert sum(row.kind in ("conv", "linear") and not row.in_shortcut for row in rows) == depth


def kept(model, x):
    """Bytes of the distinct storages that a training step saves for backward, parameters and buffers aside."""
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = (storage.nbytes(), storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return sum(nbytes for nbytes, _ in saved.values())


KEPT = {
    "basic": lambda: ResNet(BasicBlock, (2, 1, 1, 1), 10),
    "bottleneck": lambda: ResNet(Bottleneck, (2, 1, 1, 1), 10),
    "bottleneck v1": lambda: ResNet(Bottleneck, (1, 1, 1, 1), 10, stride_on="1x1"),
    "plain18": lambda: models.create("plain18", num_classes=10),
    "resnet20": lambda: models.create("resnet20"),
    "plain20": lambda: models.create("plain20"),
    "vgg with batch norm": lambda: VGG(((16, 16), (32, 32, 32)), True, 10, hidden=16),
    "bn_after_add": lambda: models.create("resnet20", block="bn_after_add"),
    "relu_before_add": lambda: models.create("resnet20", block="relu_before_add"),
    "preactivation": lambda: models.create("resnet20", block="preactivation", shortcut="average_pool"),
    "preresnet": lambda: cifar_preresnet(20),
    "vgg": lambda: VGG(((16, 16), (32, 32, 32)), False, 10, hidden=16),
}


def assert_kept_as_counted(model, size):
    """Within 2 %: vectors of a channel are not counted, nor that the last of all activations and sums is not kept."""
    x = images(size, batch=2, dtype=torch.float32)
    for runs, backend in (("eager", "eager"), ("fused", "auto")):
        formula = total(layers(model, tuple(x.shape)), f"kept_{runs}")
        with resnet_fused.backend(backend):
            measured = kept(model, x)
        print(f"{runs}: {measured / 2**20:.2f} MiB, by formula {formula / 2**20:.2f}")
        assert abs(measured - formula) <= 0.02 * formula, runs


@pytest.mark.parametrize("name", KEPT)
def test_kept_bytes_are_those_that_are_kept(name):
    assert_kept_as_counted(KEPT[name](), 96)


# What is multiplied before the sum, with shortcuts of each kind; and what other units then leave for each other.
PRODUCTS = (
    {"se": True}, {"shortcut": "exclusive_gating"}, {"shortcut": "shortcut_gating"}, {"shortcut": "dropout"},
    {"shortcut": "scaling"}, {"shortcut": "exclusive_gating", "se": True}, {"shortcut": "convolution", "se": True},
    {"shortcut": "convolution", "stochastic_depth": 0.5},
)  # fmt: skip
EVERYDAY = (("original", 0), ("relu_preactivation", 1), ("preactivation", 6))


@pytest.mark.parametrize("block, options", [
    pytest.param(block, options, id=" ".join((block, *map(str, options.values()))),
                 marks=() if (block, i) in EVERYDAY else pytest.mark.slow)
    for block in ORDERINGS for i, options in enumerate(PRODUCTS)
])  # fmt: skip
def test_kept_bytes_of_products(block, options):
    assert_kept_as_counted(models.create("resnet20", block=block, **options), 48)


def test_the_model_is_left_alone():
    model = models.create("resnet20")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layers(model, (2, 3, 32, 32))
    assert model.training and not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_batch_and_itemsize():
    one, more = (layers(models.create("resnet20"), (n, 3, 32, 32), itemsize) for n, itemsize in ((1, 4), (6, 2)))
    for field, factor in (("parameters", 1), ("multiply_adds", 6), ("kept_eager", 3), ("kept_fused", 3)):
        assert total(more, field) == factor * total(one, field), field


def test_images_too_small():
    with pytest.raises(RuntimeError):
        counted("vgg16", size=16)
