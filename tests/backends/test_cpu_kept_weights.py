"""Packed weights that inference keeps: used again only for the same values, and given up with the weights."""

import gc

import engine
import pytest
import torch
from problems import RESNET, WINOGRAD
from tolerance import max_error

from resnet_fused import _ext, ops

_cpu = _ext._cpu
PROBLEMS = {"winograd": WINOGRAD[1], "direct": RESNET[2], "folded": RESNET[0], "grouped": RESNET[1]._replace(groups=2)}


@pytest.fixture(autouse=True)
def _empty():
    _cpu.release_kept_weights()
    yield
    _cpu.release_kept_weights()


class Convolution:
    def __init__(self, p, chained=False):
        self.chained = chained  # in a chain of its own, whose weights are all looked at before the first is used
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(p.N, p.C, p.H, p.W, generator=generator)
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.weight = torch.nn.Parameter(torch.randn(p.K, p.C // p.groups, p.R, p.S, generator=generator))
        self.affine = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(4, 1).repeat(1, p.K)
        self.conv = (p.stride, p.padding, p.dilation, p.groups)

    def run(self):
        """By the epilogue of inference."""
        if self.chained:
            norm = [*torch.tensor([[1.0], [0.0], [0.0], [1.0]]).expand(4, len(self.weight))]
            geometry = [*sum(self.conv[:3], ()), self.conv[3], 0]
            return ops.get("cpu").frozen_chains(self.x, [self.weight], norm, [0.0], geometry, [1, 0, 0]).detach()
        arguments = (None, False, False, self.affine, None, None, False)
        return ops.get("cpu").conv_fprop(self.x, self.weight, *self.conv, *arguments)[0].detach()

    def check(self):
        truth = torch.conv2d(self.x.double(), self.weight.double(), None, *self.conv)
        # Sums of at most 300 terms of size 1 or so, by Winograd with errors up to 8 times as large.
        assert max_error(self.run(), truth) < 1e-3


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_kept_from_the_second_time(kind, chained):
    c = Convolution(PROBLEMS[kind], chained)
    first = c.run()
    assert _cpu.kept_weight_bytes() == 0
    c.check()
    kept = _cpu.kept_weight_bytes()
    assert (kept > 0) == (kind != "grouped")
    assert torch.equal(c.run(), first)
    assert _cpu.kept_weight_bytes() == kept


def _optimizer_step(weight):
    with torch.no_grad():
        weight.mul_(2)


def _other_data(weight):
    weight.data = torch.randn_like(weight)


def _through_data(weight):
    weight.data.copy_(torch.randn_like(weight))


def _one_filter_through_data(weight):
    weight.data[1] = 0


def _other_strides(weight):
    weight.data = weight.data.transpose(2, 3)


@pytest.mark.parametrize(
    "change", [_optimizer_step, _other_data, _through_data, _one_filter_through_data, _other_strides]
)
@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("kind", ["winograd", "direct"])
def test_changed_weights(kind, chained, change):
    c = Convolution(PROBLEMS[kind], chained)
    for _ in range(3):
        c.run()
    change(c.weight)
    for _ in range(3):
        c.check()


def test_one_of_a_chain_s_weights_changes():
    """Through `.data`: what is kept of the others is used again, by the sample of each."""
    x, generator = torch.randn(1, 64, 4, 4), torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(64, 64, 1, 1, generator=generator) / 8) for _ in range(4)]
    norms, conv = [*torch.tensor([[1.0], [0.0], [0.0], [1.0]]).expand(4, 64)] * 4, [1, 1, 0, 0, 1, 1, 1, 0]

    def check():
        out = ops.get("cpu").frozen_chains(x, weights, norms, [0.0] * 4, conv * 4, [2, 0, 0] * 2)
        truth = x.double()
        for weight in weights:
            truth = torch.conv2d(truth, weight.double())
        assert max_error(out, truth) < 1e-4  # values of size 1 or so, behind four sums of 64 terms in float32

    for weight in [*weights, None]:
        for _ in range(3):
            check()
        kept = _cpu.kept_weight_bytes()
        assert kept == 4 * 64 * 64 * 4
        if weight is not None:
            weight.data.mul_(-1)


@pytest.mark.parametrize("freed", ["x", "weight"])
@pytest.mark.parametrize("backend", ["cpu", "library"])
def test_freed_memory_is_rejected(backend, freed):
    x, weight, affine = torch.ones(1, 32, 2, 2), torch.ones(32, 32, 1, 1), torch.ones(4, 32)
    {"x": x, "weight": weight}[freed].untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="not allocated"):
        ops.get(backend).conv_fprop(
            x, weight, (1, 1), (0, 0), (1, 1), 1, None, False, False, affine, None, None, False
        )
    with pytest.raises(RuntimeError, match="not allocated"):
        ops.get(backend).frozen_chains(x, [weight], [*affine], [0.0], [1, 1, 0, 0, 1, 1, 1, 0], [1, 0, 0])


@pytest.mark.parametrize("weight", [
    torch.ones(4, 3, 1, 1, dtype=torch.int8), torch.ones(4, 3, 1, 1).to(torch.float8_e5m2), torch.ones(0, 3, 1, 1),
    torch.ones(4), torch.ones(()),
], ids=lambda w: f"{w.dtype} {list(w.shape)}")  # fmt: skip
def test_what_is_no_weight_is_rejected_as_by_a_convolution(weight):
    x, affine, conv = torch.ones(1, 3, 2, 2), torch.ones(4, 4), ((1, 1), (0, 0), (1, 1), 1)
    with pytest.raises(Exception) as alone:
        ops.get("cpu").conv_fprop(x, weight, *conv, None, False, False, affine, None, None, False)
    with pytest.raises(type(alone.value)) as chained:
        ops.get("cpu").frozen_chains(x, [weight], [*torch.ones(4, 4)], [0.0], [1, 1, 0, 0, 1, 1, 1, 0], [1, 0, 0])
    assert str(chained.value) == str(alone.value)


def test_training_keeps_nothing():
    c = Convolution(PROBLEMS["direct"])
    for _ in range(3):
        ops.get("cpu").conv_fprop(c.x, c.weight, *c.conv, None, False, True, None, None, None, False)
    assert _cpu.kept_weight_bytes() == 0


def test_given_up_with_the_weights():
    c = Convolution(PROBLEMS["direct"])
    another = Convolution(PROBLEMS["direct"], chained=True)
    c.run(), c.run()
    one = _cpu.kept_weight_bytes()
    another.run(), another.run()
    assert _cpu.kept_weight_bytes() == 2 * one > 0
    del c
    gc.collect()
    another.run()  # for which all is kept already
    assert _cpu.kept_weight_bytes() == one


def test_batches_that_take_turns():
    """What two algorithms make of the same weights is kept for both, and given up for both when they change."""
    p = PROBLEMS["winograd"]
    one, many = Convolution(p._replace(N=1, H=7, W=7)), Convolution(p)
    many.weight = one.weight
    size = [list((c.x.shape, c.weight.shape)) for c in (one, many)]
    assert [_cpu.conv_algorithm(*map(list, s), *one.conv, "float32") for s in size] == ["direct", "winograd"]
    kept = []
    for _ in range(4):
        one.check(), many.check()
        kept.append(_cpu.kept_weight_bytes())
    assert kept == [0, kept[1], kept[1], kept[1]] and kept[1] > one.weight.nbytes
    _through_data(one.weight)
    for _ in range(4):
        one.check(), many.check()
    assert _cpu.kept_weight_bytes() == kept[1]


def test_another_instruction_set(monkeypatch):
    before = _cpu.isa()
    c = Convolution(PROBLEMS["winograd"])
    try:
        for isa in _ext.cpu_facts()["isas_supported"]:
            _cpu.set_isa_for_testing(isa)
            for _ in range(3):
                c.check()
    finally:
        _cpu.set_isa_for_testing(before)


def test_switching_algorithms():
    c = Convolution(PROBLEMS["winograd"])
    for enabled in (True, True, False, False, True):
        with engine.winograd(enabled):
            c.check()
