"""Residual blocks of every ordering and shortcut against the same blocks run by their children, and against float64."""

import copy

import pytest
import torch
import torchvision
from tolerance import assert_oracle, max_error
from torch import nn
from torch.autograd import gradcheck
from variants import ALL, FEW, MODES, Variant, draw, results, run_seeded

import resnet_fused
from resnet_fused.modules import ORDERINGS, BlockLayers, BlockOptions, NormAct, SqueezeExcitation, record
from resnet_fused.modules.branch_options import stochastic_depth
from resnet_fused.modules.shortcuts import SHORTCUTS, AveragePoolProjection, ConstantScaling, Projection, ZeroPadding

LAYOUTS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}


def _slow_but(few, variants):
    return [pytest.param(v, id=v.id, marks=() if v in few else pytest.mark.slow) for v in variants]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variant", _slow_but(FEW, ALL))
def test_float64(variant, mode):
    """Output, gradients and running statistics are the eager twin's, on every backend that computes in float64 here."""
    block, x = draw(variant, mode, 1e-9)
    x = x.contiguous(memory_format=torch.channels_last)
    theirs = results(copy.deepcopy(block), x, "eager")
    for backend in ("cpu", "reference"):
        ours = results(copy.deepcopy(block), x, backend)
        for key in theirs:
            # 1e-10 of the largest: float64 sums of some hundred terms, amplified by 1/σ in three batch norms.
            scale = max(1.0, theirs[key].abs().max().item())
            assert max_error(ours[key], theirs[key]) <= 1e-10 * scale, (backend, key)
        assert ours["out"].stride() == theirs["out"].stride()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout, variant", [
    pytest.param(layout, v, id=f"{layout}-{v.id}", marks=() if v in FEW[::6] else pytest.mark.slow)
    for layout, variants in (("nhwc", ALL), ("nchw", ALL[::5] + FEW[::6])) for v in dict.fromkeys(variants)
])  # fmt: skip
def test_float32(variant, mode, layout):
    # float32 errors of these sums are some 1e-6; no ReLU argument comes nearer to 0 than ten times that.
    block, x = draw(variant, mode, 1e-5, torch.float32)
    x = x.contiguous(memory_format=LAYOUTS[layout])
    truth = results(copy.deepcopy(block), x, "eager")
    ours, theirs = (results(copy.deepcopy(block).float(), x.float(), backend) for backend in ("cpu", "eager"))
    pixels = x.numel() // x.shape[1]
    length = pixels + max(p[0].numel() for p in block.parameters() if p.dim() == 4)
    for key in truth:
        if truth[key].is_floating_point():
            # Oracle. A weight's gradient before batch statistics cancels to near nothing: its terms are the gradients'.
            assert_oracle(ours[key], theirs[key], truth[key], length, key, terms=1.0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variant", _slow_but(FEW[::9], ALL))
def test_gradcheck(variant, mode):
    # Numerical differentiation moves inputs by 1e-6; ReLU arguments stay a hundred times that from 0.
    block, x = draw(variant, mode, 1e-4)
    x = x[:, :, :4].contiguous() if mode != "training" and not variant.changes else x
    names, values = zip(*block.named_parameters())

    def run(x, *values):
        with resnet_fused.backend("cpu"), record() as records:
            torch.manual_seed(11)
            out = torch.func.functional_call(block, dict(zip(names, values)), (x,))
        assert {r.backend for r in records} == {"cpu"}
        return out

    leaves = [t.detach().clone().requires_grad_() for t in (x, *values)]
    # A projection onto one random direction; every entry is checked of the chains, in tests/autograd.
    assert gradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize("variant", [v for v in FEW if v.stochastic_depth], ids=lambda v: v.id)
def test_inference_with_stochastic_depth_is_the_block_without(variant):
    block, x = draw(variant, "inference", 0.0)
    plain = variant._replace(stochastic_depth=0.0).build().double().eval()
    plain.load_state_dict(block.state_dict(), strict=True)
    assert torch.equal(block(x), plain(x))  # exact: the same calls


def test_stochastic_depth_is_in_inference_within_the_unit():
    block = ORDERINGS["original"](4, 4, options=BlockOptions(stochastic_depth=0.5)).eval()
    out = block(torch.randn(2, 4, 5, 5, requires_grad=True))
    assert type(out.grad_fn).__name__.startswith("_ResidualChain")  # a sum of its own would end in ReLU's


def test_stochastic_depth_is_torchvisions():
    y = torch.randn(64, 3, 2, 2)
    torch.manual_seed(0)
    theirs = torchvision.ops.stochastic_depth(y, 0.3, "row")
    torch.manual_seed(0)
    ours = stochastic_depth(y, 0.3)
    assert torch.equal(ours, theirs)
    assert {bool(image.any()) for image in ours} == {True, False}  # some images are dropped, wholly


def test_squeeze_and_excitation_is_torchvisions():
    ours, theirs = SqueezeExcitation(32, 4), torchvision.ops.SqueezeExcitation(32, 8)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    y = torch.randn(2, 32, 5, 4)
    torch.testing.assert_close(ours(y), theirs(y), rtol=1e-6, atol=1e-6)  # another order of one mean's sum
    assert SqueezeExcitation(32).fc1.out_channels == 2


def test_shortcuts_by_hand():
    """Small integers: exact."""
    x = torch.arange(2 * 2 * 3 * 3.0).view(2, 2, 3, 3)
    padded = ZeroPadding(2, 3, 2)(x)
    assert torch.equal(padded[:, :2], x[:, :, ::2, ::2]) and padded[:, 2].eq(0).all() and padded.shape == (2, 3, 2, 2)
    with pytest.raises(ValueError, match="from 4 to 2 channels"):
        ZeroPadding(4, 2)
    pooled = AveragePoolProjection(2, 4, 2).pool(x)
    # The mean of 2×2 pixels; at the border of those there are.
    assert torch.equal(pooled[0, 0], torch.tensor([[2.0, 3.5], [6.5, 8.0]]))
    terms = ConstantScaling(0.5, 0.25)(x)
    assert torch.equal(terms.shortcut, x / 2) and terms.factor == 0.25
    for factors in ((0, 1), (1, -1)):
        with pytest.raises(ValueError, match="must be above 0"):
            ConstantScaling(*factors)


@pytest.mark.parametrize("shortcut, shortcut_weight, residual_weight", (
    ("projection", 1.0, 1.0), ("scaling", 0.5, 0.5), ("exclusive_gating", 0.25, 0.75), ("shortcut_gating", 0.25, 1.0),
    ("dropout", 1.0, 1.0),
))  # fmt: skip
def test_weights_of_the_sum(shortcut, shortcut_weight, residual_weight):
    """He et al. 2016 (Identity Mappings), table 1: a gate of zero weights and bias log 3 is g = 3/4 everywhere."""
    block = ORDERINGS["relu_preactivation"](4, 4, options=BlockOptions(shortcut)).double().eval()
    if "gating" in shortcut:
        nn.init.zeros_(block.gate.conv.weight)
        nn.init.constant_(block.gate.conv.bias, torch.tensor(3.0).log().item())
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    residual = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(torch.relu(x))))))
    # log 3 is rounded to float32 by item(): 1e-8 is left of it.
    torch.testing.assert_close(block(x), residual_weight * residual + shortcut_weight * x, rtol=1e-7, atol=1e-7)


def test_gates_start_at_their_bias():
    for name in ("exclusive_gating", "shortcut_gating"):
        assert ORDERINGS["original"](4, 4, options=BlockOptions(name)).gate.conv.bias.eq(-6).all()


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_scaling_by_hand(ordering):
    """Half of F and half of x, whatever the ordering does with the sum."""
    block, x = draw(Variant("basic", ordering, "scaling", False), "frozen", 1e-9)
    r, b = torch.relu, block
    plain = b.conv2(r(b.bn1(b.conv1(x))))
    expected = {
        "original": lambda: r(0.5 * b.bn2(plain) + 0.5 * x),
        "bn_after_add": lambda: r(b.bn2(0.5 * plain + 0.5 * x)),
        "relu_before_add": lambda: 0.5 * r(b.bn2(plain)) + 0.5 * x,
        "relu_preactivation": lambda: 0.5 * b.bn2(b.conv2(r(b.bn1(b.conv1(r(x)))))) + 0.5 * x,
        "preactivation": lambda: 0.5 * b.conv2(r(b.bn2(b.conv1(r(b.bn1(x)))))) + 0.5 * x,
    }[ordering]()
    # 1e-12: float64, the same operations but for the order of sums.
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("changes", (False, True))
def test_a_block_taken_apart_computes_the_same(ordering, changes):
    """Where F is changed before the sum it runs by other units; a depth that drops nothing must not show."""
    variant = Variant("basic", ordering, "projection", changes)
    block, x = draw(variant, "training", 1e-9)
    apart = variant._replace(stochastic_depth=1e-15).build().double()
    apart.load_state_dict(block.state_dict())
    theirs = results(block, x, "cpu")
    for name, value in results(apart, x, "cpu").items():
        scale = max(1.0, theirs[name].abs().max().item())
        assert max_error(value, theirs[name]) <= 1e-10 * scale, name  # as test_float64


ORDERS = {
    "original": lambda b, x, r: r(b.bn2(b.conv2(r(b.bn1(b.conv1(x))))) + x),
    "bn_after_add": lambda b, x, r: r(b.bn2(b.conv2(r(b.bn1(b.conv1(x)))) + x)),
    "relu_before_add": lambda b, x, r: r(b.bn2(b.conv2(r(b.bn1(b.conv1(x)))))) + x,
    "relu_preactivation": lambda b, x, r: b.bn2(b.conv2(r(b.bn1(b.conv1(r(x)))))) + x,
    "preactivation": lambda b, x, r: b.conv2(r(b.bn2(b.conv1(r(b.bn1(x)))))) + x,
}


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_orderings_as_figure_4_draws_them(ordering):
    block, x = draw(Variant("basic", ordering, "projection", False), "training", 1e-9)
    twin = copy.deepcopy(block)
    # 1e-12: float64, the same operations but for the order of sums.
    torch.testing.assert_close(block(x), ORDERS[ordering](twin, x, torch.relu), rtol=1e-12, atol=1e-12)


UNITS = {
    "original": {"projection": 1, "scaling": 1, "exclusive_gating": 1},
    "bn_after_add": {"projection": 2, "scaling": 2, "exclusive_gating": 2},
    "relu_before_add": {"projection": 1, "scaling": 1, "exclusive_gating": 1},
    "relu_preactivation": {"projection": 1, "scaling": 1, "exclusive_gating": 1},
    "preactivation": {"projection": 1, "scaling": 1, "exclusive_gating": 1},
}


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_how_many_units_a_block_is(ordering):
    """Nothing falls apart unseen: projections and identities are within the unit where the docstrings say so."""
    for shortcut, expected in UNITS[ordering].items():
        with record() as records:
            ORDERINGS[ordering](4, 4, options=BlockOptions(shortcut))(torch.randn(2, 4, 6, 6, requires_grad=True))
        assert [r.backend for r in records] == ["cpu"] * expected, shortcut
    with record() as records:
        ORDERINGS[ordering](4, 6, 2)(torch.randn(2, 4, 6, 6, requires_grad=True))
    assert len(records) == {"bn_after_add": 2, "relu_before_add": 2}.get(ordering, 1)


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_nothing_is_activated_twice_in_memory(ordering):
    """What a training step of the fused block saves is less than the eager one's by the activations within."""

    def saved(backend):
        block, x = ORDERINGS[ordering](16, 16), torch.randn(4, 16, 8, 8, requires_grad=True)
        storages = {}

        def pack(t):
            storages[t.untyped_storage()._cdata] = (t.untyped_storage().nbytes(), t)
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), resnet_fused.backend(backend):
            block(x)
        return sum(size for size, _ in storages.values())

    # Of the two activations; the last one of original and relu_preactivation is made elsewhere or is the output.
    activations = {"original": 1, "relu_preactivation": 1}.get(ordering, 2)
    # Vectors of 16 channels are kept besides, a few hundred bytes each.
    assert abs(saved("eager") - saved("auto") - activations * 4 * 4 * 16 * 64) <= 8 * 1024


def test_norm_act():
    module = NormAct(5).double()
    nn.init.uniform_(module.bn.weight)
    nn.init.normal_(module.bn.bias)
    x = torch.randn(4, 5, 3, 3, dtype=torch.float64)
    for mode in (True, False):
        module.train(mode)
        theirs = results(copy.deepcopy(module), x, "eager")
        for backend in ("cpu", "reference"):
            ours = results(copy.deepcopy(module), x, backend)
            for key in theirs:  # 1e-12: float64 sums of 36 terms
                assert max_error(ours[key], theirs[key]) <= 1e-12, key


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("shortcut", ("projection", "exclusive_gating"))
def test_state_dict_round_trip(ordering, shortcut):
    variant = Variant("basic", ordering, shortcut, True, reduction=2)
    block, x = draw(variant, "inference", 0.0)
    other = variant.build().double().eval()
    other.load_state_dict(block.state_dict(), strict=True)
    assert torch.equal(other(x), block(x))


ERRORS = {
    "channels": lambda x: x[:, :2],
    "dimensions": lambda x: x[0],
    "integers": lambda x: x.long(),
    "one value": lambda x: x[:1, :, :1, :1],
    "other dtype": lambda x: x.float(),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("shortcut", ("convolution", "exclusive_gating", "average_pool", "dropout"))
def test_errors_are_eagers_and_nothing_was_changed(ordering, shortcut, error):
    block, x = draw(Variant("basic", ordering, shortcut, True), "training", 0.0)
    x, outcomes = ERRORS[error](x), []
    for backend in ("auto", "eager"):
        before = {name: buffer.clone() for name, buffer in block.named_buffers()}
        with resnet_fused.backend(backend), pytest.raises(Exception) as raised:
            run_seeded(block, x)
        outcomes.append((raised.type, str(raised.value)))
        assert all(torch.equal(buffer, before[name]) for name, buffer in block.named_buffers())
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("backend", ("auto", "eager"))
@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("shortcut", ("average_pool", "convolution", "dropout"))
def test_a_late_error_leaves_earlier_batch_norms_alone(ordering, shortcut, backend):
    """Whatever ran before it: the shortcut's, those of a unit before the one that fails."""
    block, x = draw(Variant("basic", ordering, shortcut, True), "training", 0.0)
    if ordering == "bn_after_add":
        block.bn2 = nn.BatchNorm2d(7).double()
    else:
        block.conv2 = nn.Conv2d(7, 4, 3, padding=1, bias=False).double()
    before = {name: buffer.clone() for name, buffer in block.named_buffers()}
    with resnet_fused.backend(backend), pytest.raises(RuntimeError):
        block(x)
    assert all(torch.equal(buffer, before[name]) for name, buffer in block.named_buffers())


@pytest.mark.parametrize("ordering", ("original", "preactivation"))
@pytest.mark.parametrize("shortcut", ("scaling", "shortcut_gating", "dropout"))
def test_a_block_of_one_unit_copies_no_statistics(ordering, shortcut, monkeypatch):
    """What fails in its unit fails before the update."""

    def copied(module):
        raise AssertionError("running statistics were copied")

    monkeypatch.setattr("resnet_fused.modules.residual.statistics_restored_on_error", copied)
    for changes in (False, True):
        block, x = draw(Variant("basic", ordering, shortcut, changes), "training", 0.0)
        block(x)


def test_constructors_errors():
    for build, words in (
        (lambda: BlockOptions(shortcut="identity"), "there is no shortcut 'identity'; expected one of projection"),
        (lambda: BlockOptions(change="cut"), "there is no change of shape 'cut'"),
        (lambda: BlockOptions(stochastic_depth=1.0), "at least 0 and below 1"),
    ):
        with pytest.raises(ValueError, match=words):
            ORDERINGS["original"](4, 4, options=build())
    with pytest.raises(ValueError, match="a NormAfterAdditionBlock has no batch norm before its first convolution"):
        ORDERINGS["bn_after_add"](4, 4, preactivated=True)
    for layers, words in (
        (BlockLayers("wide"), "there are no layers 'wide'"),
        (BlockLayers("basic", stride_on="1x1"), "a basic block has no 1x1 convolution"),
        (BlockLayers("basic", groups=2), "only supports groups=1"),
        (BlockLayers("bottleneck", stride_on="2x2"), "expected '3x3'"),
    ):
        with pytest.raises(ValueError, match=words):
            ORDERINGS["original"](4, 4, layers=layers)
    assert len(SHORTCUTS) == 8 and len(ORDERINGS) == 5


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_a_measurement_leaves_nothing(ordering):
    """Neither running statistics nor draws differ where every unit was timed first."""
    block, x = draw(Variant("basic", ordering, "dropout", True), "training", 1e-9)
    twin = copy.deepcopy(block)
    with resnet_fused.dispatch.measuring("always"), record() as records:
        leaf = x.clone().requires_grad_()
        out = run_seeded(block, leaf)
        out.sum().backward()
    assert all(r.reason.startswith("measured") for r in records)
    with resnet_fused.backend("eager"):
        torch.testing.assert_close(out, run_seeded(twin, x), rtol=1e-10, atol=1e-10)  # as test_float64
    for ours, theirs in zip(block.buffers(), twin.buffers()):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    assert all(p.grad is not None for p in block.parameters())


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_hooks_on_children_act(ordering):
    block, calls = ORDERINGS[ordering](4, 4), []
    block.relu.register_forward_hook(lambda *_: calls.append(1))
    with record() as records:
        block(torch.randn(2, 4, 5, 5))
    assert calls and None in {r.backend for r in records}
    assert None in {row.backend for row in resnet_fused.explain(block, torch.randn(2, 4, 5, 5)).rows}


def test_a_shortcut_of_another_kind_is_called():
    class Negated(Projection):
        def forward(self, x):
            return -super().forward(x)

    block = ORDERINGS["original"](4, 6, 2).double().eval()
    x, conv_bn = torch.randn(2, 4, 5, 5, dtype=torch.float64), block.shortcut
    branch = ORDERINGS["original"].branch(block, x, False)
    conv_bn.__class__ = Negated
    torch.testing.assert_close(block(x), torch.relu(branch + conv_bn(x)), rtol=1e-12, atol=1e-12)  # roundings
    assert not torch.allclose(block(x), torch.relu(branch - conv_bn(x)))


@pytest.mark.parametrize("ordering", ("bn_after_add", "preactivation"))
def test_autocast(ordering):
    """bfloat16 within autocast, as eager: the same dtype, and an error of at most eager's twice."""
    block, x = draw(Variant("basic", ordering, "projection", False), "inference", 0.0)
    truth, outs = block(x), []
    block, x = block.float(), x.float().bfloat16()
    for backend in ("cpu", "eager"):
        with resnet_fused.backend(backend), torch.autocast("cpu", torch.bfloat16), record() as records:
            outs.append(block(x))
        assert {r.backend for r in records} == {None if backend == "eager" else backend}
    assert outs[0].dtype == outs[1].dtype == torch.bfloat16
    # A float32 input keeps its precision on the shortcut, and before the batch norm that comes first: eager's affair.
    for backend in ("auto", "eager"):
        with resnet_fused.backend(backend), torch.autocast("cpu", torch.bfloat16), record() as records:
            outs.append(block(x.float()))
    # 1e-5: the convolutions are the same calls; a batch norm behind them is fused, in float32.
    torch.testing.assert_close(outs[2], outs[3], rtol=1e-5, atol=1e-5)
    # Oracle, plus two roundings of the result to bfloat16: the largest errors of few values are themselves random.
    assert max_error(outs[0], truth) <= 2 * max_error(outs[1], truth) + 2**-8 * truth.abs().max()
