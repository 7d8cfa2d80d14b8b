"""The textbook blocks and ConvBNAct against twins of plain PyTorch modules."""

import copy

import pytest
import torch
from eager_pairs import assert_same, batch_norms, buffers, compare, outcome, randomize, step
from operator_cases import HALVES_EVERYDAY
from torch import nn

import resnet_fused
from resnet_fused.modules import record
from resnet_fused.modules.fused import FusedModule


class Twin(nn.Module):
    """The textbook's own block: relu(residual_function(x) + shortcut(x)), nothing of ours in it."""

    def __init__(self, block):
        super().__init__()
        self.residual_function = copy.deepcopy(block.residual_function)
        self.shortcut = copy.deepcopy(block.shortcut)

    def forward(self, x):
        return nn.ReLU(inplace=True)(self.residual_function(x) + self.shortcut(x))


BLOCKS = {
    "basic": lambda: resnet_fused.textbook.BasicBlock(8, 8),
    "basic strided": lambda: resnet_fused.textbook.BasicBlock(8, 12, stride=2),
    "basic wider": lambda: resnet_fused.textbook.BasicBlock(8, 16),
    "bottleneck": lambda: resnet_fused.textbook.Bottleneck(8, 2),
    "bottleneck strided": lambda: resnet_fused.textbook.Bottleneck(8, 4, stride=2),
}


def textbook_pair(name, dtype=torch.float64):
    torch.manual_seed(0)
    fused = randomize(BLOCKS[name]().to(dtype))
    return Twin(fused), fused


def image(dtype=torch.float64, batch=3, size=6):
    return torch.randn(batch, 8, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("name, depth, projection", (
    ("basic", 2, False), ("basic strided", 2, True), ("basic wider", 2, True),
    ("bottleneck", 3, False), ("bottleneck strided", 3, True),
))  # fmt: skip
def test_textbook_children(name, depth, projection):
    block = BLOCKS[name]()
    assert [n for n, _ in block.named_children()] == ["residual_function", "shortcut"]
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * depth
    assert [type(m) for m in block.residual_function] == kinds[:-1]
    assert [type(m) for m in block.shortcut] == ([nn.Conv2d, nn.BatchNorm2d] if projection else [])
    assert all(conv.bias is None for conv in block.modules() if isinstance(conv, nn.Conv2d))
    assert type(block).expansion == (1 if depth == 2 else 4)


@pytest.mark.parametrize("mode", ("training", "eval", "frozen"))
@pytest.mark.parametrize("name", BLOCKS)
def test_textbook_step(name, mode):
    modules = textbook_pair(name)
    for module in modules:
        module.train(mode != "eval")
        for bn in batch_norms(module) if mode == "frozen" else ():
            bn.eval()
    compare(lambda module: step(module, image()), modules)


@pytest.mark.parametrize("child", ("residual_function", "residual_function.0", "residual_function.2", "shortcut"))
def test_textbook_hooks_act(child):
    modules = textbook_pair("basic strided")
    for module in modules:
        module.get_submodule(child).register_forward_hook(lambda module, inputs, output: output * 1.5)
    compare(lambda module: step(module, image()), modules, runs=None)


def test_textbook_other_structures_run_eager():
    for change in (
        lambda m: m.residual_function.append(nn.Dropout(0.0)),
        lambda m: m.residual_function.insert(2, nn.AvgPool2d(1)),
        lambda m: setattr(m, "shortcut", nn.Identity()),
        lambda m: m.residual_function.__setitem__(2, nn.GELU()),
    ):
        modules = textbook_pair("basic")
        for module in modules:
            change(module)
        compare(lambda module: step(module, image().double()), modules, runs=None)


def test_textbook_longer_chains_are_fused():
    """Any number of units: four convolutions."""
    eager, fused = textbook_pair("basic")
    for module in (eager, fused):
        torch.manual_seed(5)
        for _ in range(2):
            module.residual_function.append(nn.ReLU())
            module.residual_function.append(nn.Conv2d(8, 8, 3, padding=1, bias=False).double())
            module.residual_function.append(nn.BatchNorm2d(8).double())
    compare(lambda module: step(module, image()), (eager, fused))


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("half", HALVES_EVERYDAY, ids=str)
@pytest.mark.parametrize("is_half", (False, True))
def test_textbook_autocast_dtypes(name, is_half, half):
    """bfloat16 + float32 is float32: a textbook block whose shortcut is x itself gives the dtype of that sum."""
    x_dtype = half if is_half else torch.float32

    def action(module):
        with torch.autocast("cpu", half):
            return module(image(x_dtype))

    eager, fused = textbook_pair(name, torch.float32)
    ours, theirs = action(fused), action(eager)
    assert ours.dtype == theirs.dtype
    assert (theirs.dtype == torch.float32) == (x_dtype == torch.float32 and len(fused.shortcut) == 0)
    # Up to four roundings between x and y, of values up to 8: half an ulp each, eps / 4 of the next power of two.
    assert (ours.float() - theirs.float()).abs().max() <= 4 * 8 * torch.finfo(half).eps / 4


def test_textbook_errors():
    eager, fused = textbook_pair("basic")
    for x in (torch.randn(1, 8, 1, 1).double(), torch.randn(2, 5, 4, 4).double(), torch.randn(2, 8, 4, 4)):
        expected = outcome(lambda module: module(x), eager)
        assert outcome(lambda module: module(x), fused) == expected and isinstance(expected[0], type)
    assert all(bn.num_batches_tracked == 0 for bn in batch_norms(fused))


class ConvTwin(nn.Module):
    def __init__(self, unit):
        super().__init__()
        self.conv, self.bn, self.act = (copy.deepcopy(m) for m in (unit.conv, unit.bn, unit.act))

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


UNITS = {
    "3x3": dict(),
    "3x3 strided": dict(stride=2),
    "1x1": dict(kernel_size=1),
    "1x1 strided": dict(kernel_size=1, stride=2),
    "5x5": dict(kernel_size=5),
    "dilated": dict(dilation=2),
    "grouped": dict(groups=4),
    "depthwise": dict(groups=8),
    "without padding": dict(padding=0),
    "without relu": dict(relu=False),
    "1x1 without relu": dict(kernel_size=1, relu=False),
}


def unit_pair(options, out_channels=8):
    torch.manual_seed(0)
    fused = randomize(resnet_fused.ConvBNAct(8, out_channels, **options).double())
    return ConvTwin(fused), fused


@pytest.mark.parametrize("mode", ("training", "eval"))
@pytest.mark.parametrize("name", UNITS)
def test_conv_bn_act_step(name, mode):
    modules = [m.train(mode == "training") for m in unit_pair(UNITS[name], 16)]
    compare(lambda module: step(module, image()), modules)


@pytest.mark.parametrize("name", ("3x3", "5x5", "dilated", "1x1"))
def test_conv_bn_act_keeps_the_extent(name):
    fused = unit_pair(UNITS[name])[1]
    assert fused(image()).shape == (3, 8, 6, 6)


def test_conv_bn_act_structure():
    unit = resnet_fused.ConvBNAct(3, 8)
    assert isinstance(unit, FusedModule)
    assert [(n, type(m)) for n, m in unit.named_children()] == [
        ("conv", nn.Conv2d), ("bn", nn.BatchNorm2d), ("act", nn.ReLU)]  # fmt: skip
    assert unit.conv.bias is None and type(resnet_fused.ConvBNAct(3, 8, relu=False).act) is nn.Identity


@pytest.mark.parametrize("child", ("conv", "bn", "act"))
@pytest.mark.parametrize("relu", (True, False))
def test_conv_bn_act_hooks_act(child, relu):
    modules = unit_pair(dict(relu=relu))
    for module in modules:
        getattr(module, child).register_forward_hook(lambda module, inputs, output: output * 1.5)
    compare(lambda module: step(module, image()), modules, runs=None)


def test_conv_bn_act_of_another_activation():
    modules = unit_pair({})
    for module in modules:
        module.act = nn.SiLU()
    compare(lambda module: step(module, image()), modules, runs=None)


def test_record_is_silent_outside_of_its_context():
    fused = unit_pair({})[1]
    with record() as outer:
        with record() as inner:
            fused(image())
        assert len(inner) == 1 and not outer
    fused(image())
    assert len(inner) == 1 and not outer
    assert_same(buffers(fused)["bn.num_batches_tracked"], torch.tensor(2))
