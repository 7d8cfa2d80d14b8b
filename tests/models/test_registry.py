"""create and list_models: names, defaults, options, and how weights are drawn."""

import contextlib
from functools import partial

import pytest
import torch
from torch import nn

from resnet_fused import models
from resnet_fused.models.cifar import PaddedBlock, cifar_resnet
from resnet_fused.models.resnet import ResNet
from resnet_fused.modules import BasicBlock, Bottleneck, record


def on_meta(name, **options):
    with torch.device("meta"):
        return models.create(name, **options)


def test_names():
    assert set(models.list_models()) == {
        *(f"resnet{d}" for d in (18, 34, 50, 101, 152, 8, 14, 20, 32, 44, 56, 110, 1202)),
        *(f"plain{d}" for d in (18, 34, 8, 14, 20, 32, 44, 56, 110)),
        "vgg16", "vgg19", "vgg16_bn", "vgg19_bn", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
        "wide_resnet50_2", "wide_resnet101_2", "preresnet164", "preresnet1001",
    }  # fmt: skip


@pytest.mark.parametrize("name, words", (
    ("resnet51", "there is no model 'resnet51'; did you mean resnet56 or resnet50 or resnet18?"),
    ("vgg16bn", "there is no model 'vgg16bn'; did you mean vgg16_bn or "),
    ("alexnet", "there is no model 'alexnet'; "),
    ("42", "there is no model '42'; resnet_fused.models.list_models() lists all"),
))  # fmt: skip
def test_unknown_names(name, words):
    with pytest.raises(ValueError) as error:
        models.create(name)
    assert str(error.value).startswith(words)


@pytest.mark.parametrize("name, classes", (("resnet18", 1000), ("vgg16_bn", 1000), ("plain34", 1000), ("resnet20", 10),
                                           ("plain20", 10)))  # fmt: skip
def test_classes(name, classes):
    for options, expected in (({}, classes), ({"num_classes": 7}, 7)):
        last = list(on_meta(name, **options).modules())[-1]
        assert type(last) is nn.Linear and last.out_features == expected


def strides(model):
    return [(c.kernel_size[0], c.stride[0]) for n, c in model.named_modules()
            if isinstance(c, nn.Conv2d) and c.stride != (1, 1) and "downsample" not in n]  # fmt: skip


def test_where_a_bottleneck_halves():
    assert strides(on_meta("resnet50")) == [(7, 2), (3, 2), (3, 2), (3, 2)]
    assert strides(on_meta("resnet50", stride_on="1x1")) == [(7, 2), (1, 2), (1, 2), (1, 2)]
    with pytest.raises(ValueError, match="stride_on='2x2': expected '3x3'"):
        models.create("resnet50", stride_on="2x2")
    with pytest.raises(ValueError, match="a basic block has no 1x1 convolution"):
        models.create("resnet18", stride_on="1x1")


def test_options_that_a_network_does_not_have():
    for name, option in (("plain34", "zero_init_residual"), ("resnet20", "stride_on"), ("vgg16", "stride_on")):
        with pytest.raises(TypeError, match=option):
            on_meta(name, **{option: True})


@pytest.mark.parametrize("build, last", (
    (partial(ResNet, BasicBlock, (2, 1, 1, 1), 10), "bn2"),
    (partial(ResNet, Bottleneck, (2, 1, 1, 1), 10), "bn3"),
    (partial(models.create, "resnet20"), "bn2"),
))  # fmt: skip
def test_zero_init_residual(build, last):
    """Then and only then each block that does not change the shape is relu(x)."""
    for zero in (False, True):
        model = build(zero_init_residual=zero)
        scales = {n: m.weight for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
        for key, scale in scales.items():
            expected = 0.0 if zero and key.endswith(f".{last}") else 1.0
            assert torch.equal(scale, torch.full_like(scale, expected)), key
    x = torch.randn(2, model.layer1[1].conv1.in_channels, 6, 6)
    assert torch.equal(model.layer1[1](x), x.relu())


@pytest.mark.parametrize("name", ("resnet20", "plain20"))
def test_variance_of_the_draws(name):
    """2 / (K·R·S). Of n draws the variance's standard error is sqrt(2 / n) of it; five of them bound it."""
    torch.manual_seed(0)
    for module in models.create(name).modules():
        if isinstance(module, nn.Conv2d):
            expected = 2 / (module.out_channels * 9)
            error = abs(module.weight.var().item() / expected - 1)
            assert error <= 5 * (2 / module.weight.numel()) ** 0.5
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all() and module.bias.eq(0).all()


def test_option_a():
    """With a branch of zeros a block is relu of every second pixel, zero channels behind; odd extents round up."""
    block = PaddedBlock(2, 5, 2)
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(3, 2, 7, 6)
    expected = torch.zeros(3, 5, 4, 3)
    expected[:, :2] = x[:, :, ::2, ::2].relu()
    assert torch.equal(block(x), expected)
    with pytest.raises(ValueError, match="from 4 to 2 channels"):
        PaddedBlock(4, 2)


def test_option_a_is_one_unit():
    """Shortcut, sum and ReLU are within the unit's node; eager's would end in a ReLU's."""
    out = PaddedBlock(2, 5, 2)(torch.randn(3, 2, 7, 6, requires_grad=True))
    assert type(out.grad_fn).__name__.startswith("_ResidualChain")


@pytest.mark.parametrize("change, reason", [
    (lambda t: t[:, :, 1:], "the shortcut's shape is not the main branch's"),
    (lambda t: t.double(), "its shortcut is of another type, dtype or device than the input"),
])  # fmt: skip
def test_a_shortcut_that_does_not_fit_is_eager_s_affair(change, reason):
    class Other(PaddedBlock):
        def given_shortcut(self, x):
            return change(super().given_shortcut(x))

    block, x = Other(2, 5, 2), torch.randn(3, 2, 7, 6)
    with record() as records, contextlib.suppress(RuntimeError):  # the shape; a sum in place takes the dtype
        block(x)
    assert [(r.backend, r.reason) for r in records] == [(None, reason)]


def test_depth_of_cifar_networks():
    for depth in (2, 21, 51):
        with pytest.raises(ValueError, match=f"6n \\+ 2 layers: 8, 14, 20, …; not {depth}"):
            cifar_resnet(depth)
    convs = [m for m in cifar_resnet(8).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(convs) == 8
