"""Numbers, statistics and settings: one training step of eager's block and of ours, everything compared."""

import copy

import pytest
import torch
import torchvision
from eager_pairs import (
    BLOCKS,
    KINDS,
    assert_same,
    batch_norms,
    buffers,
    compare,
    errors_against_float64,
    image,
    pair,
    randomize,
    step,
)
from operator_cases import HALVES_EVERYDAY
from torch import nn

import resnet_fused
from resnet_fused.modules import record


def train_step(kind, **options):
    return lambda module: step(module, image(kind, **options))


def change(modules, setting):
    for module in modules:
        for bn in batch_norms(module):
            setting(bn)
    return modules


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ("training", "eval", "frozen", "mixed"))
def test_a_step(kind, mode):
    modules = pair(kind)
    for module in modules:
        module.train(mode != "eval")
        norms = batch_norms(module)
        for bn in {"frozen": norms, "mixed": norms[:1]}.get(mode, ()):
            bn.eval()
    compare(train_step(kind), modules)


@pytest.mark.parametrize("kind", KINDS)
def test_several_steps_accumulate_the_same_statistics(kind):
    def steps(module):
        return [step(module, image(kind, seed=seed))["y"] for seed in range(4)]

    compare(steps, pair(kind))


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("batch, size", ((1, 6), (2, 1), (1, 5), (2, 7), (5, 3)))
def test_ragged_sizes(kind, batch, size):
    if size == 1 and kind.endswith("projection"):
        batch = 3
    compare(train_step(kind, batch=batch, size=size), pair(kind))


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("shape", ((0, 8, 6, 6), (2, 8, 0, 6), (2, 8, 6, 0)))
def test_empty_input(kind, shape):
    """Zero gradients, running statistics unchanged, the counter advanced; for H = 0 whatever eager says."""
    eager, fused = pair(kind)
    before = buffers(fused)
    x = torch.zeros(shape, dtype=torch.float64)
    results = []
    for module in (eager, fused):
        try:
            results.append(step(module, x))
        except RuntimeError as error:
            results.append(str(error))
    assert_same(results[1], results[0])
    if isinstance(results[0], str):
        assert_same(buffers(fused), before)
    else:
        assert_same(buffers(fused), buffers(eager))
        assert all(not gradient.any() for gradient in results[1]["dp"])
        assert all(bn.num_batches_tracked == 1 for bn in batch_norms(fused))
        assert torch.equal(fused.bn1.running_var, before["bn1.running_var"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("momentum", (None, 0, 0.0, 0.3, 1.0))
def test_momentum(kind, momentum):
    def steps(module):
        return [step(module, image(kind, seed=seed)) for seed in range(3)]

    modules = change(pair(kind), lambda bn: setattr(bn, "momentum", momentum))
    before = buffers(modules[1])
    compare(steps, modules)
    bn = batch_norms(modules[1])[0]
    assert bn.num_batches_tracked == 3
    assert torch.equal(bn.running_mean, before["bn1.running_mean"]) == (momentum in (0, 0.0) and momentum is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_track_running_stats_switched_off_later(kind):
    """The buffers stay as they are in training, and are used in eval."""
    modules = change(pair(kind), lambda bn: setattr(bn, "track_running_stats", False))
    before = buffers(modules[1])
    compare(train_step(kind), modules)
    assert_same(buffers(modules[1]), before, tolerance=0)
    compare(train_step(kind), [module.eval() for module in modules])


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("kind", KINDS)
def test_built_without_running_statistics(kind, training):
    def drop(bn):
        bn.track_running_stats = False
        bn.running_mean = bn.running_var = bn.num_batches_tracked = None

    modules = change(pair(kind), drop)
    compare(train_step(kind), [module.train(training) for module in modules])


def test_running_var_is_unbiased():
    """Momentum 1 leaves the batch's own variance, divided by n - 1."""
    module = resnet_fused.ConvBNAct(2, 3, 1).double()
    module.bn.momentum = 1.0
    x = torch.randn(2, 2, 2, 3, dtype=torch.float64)
    with record() as records:
        module(x)
    assert records[0].backend == "cpu"
    raw = module.conv(x)
    assert_same(module.bn.running_var, raw.var((0, 2, 3), unbiased=True).detach())
    assert_same(module.bn.running_mean, raw.mean((0, 2, 3)).detach())


AFFINE = {
    "no bias": lambda bn: setattr(bn, "bias", None),
    "no weight": lambda bn: setattr(bn, "weight", None),
    "neither": lambda bn: (setattr(bn, "weight", None), setattr(bn, "bias", None)),
    "weight frozen": lambda bn: bn.weight.requires_grad_(False),
    "bias frozen": lambda bn: bn.bias.requires_grad_(False),
    "negative weight": lambda bn: bn.weight.data.neg_(),
    "zero weight": lambda bn: bn.weight.data.zero_(),
}


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize("kind", ("basic", "bottleneck_projection", "stem"))
def test_affine_variants(kind, affine, training):
    modules = change(pair(kind), AFFINE[affine])
    compare(train_step(kind), [module.train(training) for module in modules])


def test_batch_norm_constructed_without_bias():
    modules = pair("basic")
    for module in modules:
        module.bn2 = randomize(nn.Sequential(nn.BatchNorm2d(8, bias=False, dtype=torch.float64)))[0]
        assert module.bn2.bias is None
    compare(train_step("basic"), modules)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("frozen", ("conv1", "bn2", "conv2", "input", "all"))
@pytest.mark.parametrize("training", (True, False))
def test_only_some_gradients_are_wanted(kind, frozen, training):
    def partial_step(module):
        x = image(kind).requires_grad_(frozen != "input")
        y = module.train(training)(x)
        if not y.requires_grad:
            return y
        y.square().sum().backward()
        return y.detach(), x.grad, {name: p.grad for name, p in module.named_parameters()}

    modules = pair(kind)
    for module in modules:
        for name, p in module.named_parameters():
            p.requires_grad_(frozen != "all" and not name.startswith(frozen))
    compare(partial_step, modules)


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("value", (float("nan"), float("inf"), -float("inf")))
@pytest.mark.parametrize("kind", KINDS)
def test_not_finite_input(kind, value, training):
    """NaN and Inf go where eager's go, in y, in every gradient and in the running statistics."""
    x = image(kind)
    x[0, 1, 2, 3] = value
    compare(lambda module: step(module, x), [module.train(training) for module in pair(kind)])


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("value", (float("nan"), float("inf")))
def test_not_finite_values_stay_in_their_channel(value, training):
    """A 1x1 convolution that copies channels: NaN poisons its own channel alone."""
    torch.manual_seed(0)
    eager = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU()).double()
    fused = resnet_fused.ConvBNAct(4, 4, 1).double()
    with torch.no_grad():
        for conv in (eager[0], fused.conv):
            conv.weight.copy_(torch.eye(4, dtype=torch.float64)[:, :, None, None])
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    x[1, 2, 3, 3] = value
    with record() as records:
        ours = step(fused.train(training), x)
    theirs = step(eager.train(training), x)
    assert records[0].backend == "cpu"
    for name in ("y", "dx", "dp"):
        assert_same(ours[name], theirs[name])
    assert_same(list(ours["buffers"].values()), list(theirs["buffers"].values()))
    bad = ours["y"].isfinite().logical_not().sum((0, 2, 3)) > 0
    # An infinite activation multiplies zeros of the copying convolution into NaN elsewhere, in eager as here.
    assert bad.tolist() == theirs["y"].isfinite().logical_not().sum((0, 2, 3)).gt(0).tolist()


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("index", (0, -1))
def test_relu_at_nan(kind, index, training):
    """A NaN shift makes one channel NaN: ReLU keeps it, and the gradient passes there."""
    modules = pair(kind)
    for module in modules:
        batch_norms(module.train(training))[index].bias.data[1] = float("nan")
    expected = compare(train_step(kind), modules)
    y = expected["y"].view(3, 64, -1) if kind == "stem" else expected["y"]  # the stem's pixels come flattened
    assert y[:, 1].isnan().all()


def test_relu_at_zero_passes_no_gradient():
    modules = pair("basic")
    for module in modules:
        for bn in batch_norms(module):
            nn.init.zeros_(bn.weight)
            nn.init.zeros_(bn.bias)
    x = image() * (torch.arange(6) % 2)  # every other argument of the last ReLU is exactly zero
    expected = compare(lambda module: step(module, x), modules)
    assert not expected["dx"][:, :, :, ::2].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mean", (0.0, 1e4))
def test_float32_as_accurate_as_eager(kind, mean):
    """Forward in float32, also with a mean of 1e4: sum(x²) - sum(x)² would be off by 2.4, eager is off by 6e-4."""
    x = image(kind, batch=4, size=12) + mean

    def action(module, dtype):
        with torch.no_grad():
            return module(x.to(dtype)), buffers(module)

    ours, theirs, scales = errors_against_float64(action, kind, torch.float32)
    for error, eagers, scale in zip(ours, theirs, scales):
        # Twice eager's error, plus the rounding of a sum of 8·9 products: sqrt(72)·eps of the tensor's scale.
        assert error <= 2 * eagers + 72**0.5 * 2**-23 * scale, (ours, theirs)


def test_float32_statistics_of_a_large_mean():
    """A 1x1 convolution that copies channels, mean 1e4, std 1."""
    fused = resnet_fused.ConvBNAct(8, 8, 1, relu=False)
    with torch.no_grad():
        fused.conv.weight.copy_(torch.eye(8)[:, :, None, None])
    x = torch.randn(8, 8, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e4
    x = x.float()
    exact = torch.batch_norm(x.double(), None, None, None, None, True, 0.0, 1e-5, False)
    eager = torch.batch_norm(x, None, None, None, None, True, 0.0, 1e-5, False)
    with record() as records:
        ours = fused(x)
    assert records[0].backend == "cpu"
    # eager's own error is the rounding of the mean, half an ulp of 1e4 (4.9e-4): twice that for ours
    assert (ours - exact).abs().max() <= 2 * max((eager - exact).abs().max(), 4.9e-4)


@pytest.mark.parametrize("half", HALVES_EVERYDAY, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_module_in_16_bits(kind, half):
    """model.bfloat16(): running statistics bfloat16, counter int64; as near to float64 as eager is."""
    x = image(kind, batch=4, size=8, dtype=half)

    def action(module, dtype):
        result = step(module, x.to(dtype), lambda y: torch.ones_like(y))
        assert batch_norms(module)[0].running_mean.dtype == dtype
        assert batch_norms(module)[0].num_batches_tracked.dtype == torch.int64
        return result["y"], result["buffers"]

    ours, theirs, scales = errors_against_float64(action, kind, half)
    for error, eagers, scale in zip(ours, theirs, scales):
        # One rounding beside twice eager's error.
        assert error <= 2 * eagers + torch.finfo(half).eps / 2 * scale, (ours, theirs)


@pytest.mark.parametrize("half", HALVES_EVERYDAY, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", (True, False))
def test_cpu_autocast(kind, training, half):
    """The same dtypes as eager for y and every gradient, and as near to float64 as eager is."""
    x = image(kind, batch=4, size=8)

    def action(module, dtype):
        module.train(training)
        with torch.autocast("cpu", half, enabled=dtype == torch.float32):
            y = module(x.to(dtype).requires_grad_())
        y = y.float() if dtype == torch.float32 else y
        return y.detach(), buffers(module)

    ours, theirs, scales = errors_against_float64(action, kind, torch.float32)
    for error, eagers, scale in zip(ours, theirs, scales):
        # One rounding beside twice eager's error.
        assert error <= 2 * eagers + torch.finfo(half).eps / 2 * scale, (ours, theirs)


@pytest.mark.parametrize("half", HALVES_EVERYDAY, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_half", (False, True))
def test_cpu_autocast_dtypes(kind, is_half, half):
    def dtypes(module):
        with torch.autocast("cpu", half):
            result = step(module, image(kind, half if is_half else torch.float32), lambda y: torch.ones_like(y))
        return [str(t.dtype) for t in (result["y"], result["dx"], *result["dp"], *result["buffers"].values())]

    eager, fused = pair(kind, torch.float32)
    with record() as records:
        ours = dtypes(fused)
    assert records[0].backend == "cpu"
    assert ours == dtypes(eager)


@pytest.mark.parametrize("half", HALVES_EVERYDAY, ids=str)
def test_frozen_batch_norms_of_float32_promote(half):
    """FrozenBatchNorm2d multiplies by its buffers: under autocast float32 comes out, where nn.BatchNorm2d keeps 16 bits."""
    eager = torchvision.models.resnet.BasicBlock(8, 8, norm_layer=torchvision.ops.FrozenBatchNorm2d)
    x = image(dtype=torch.float32)

    def action(module):
        with torch.autocast("cpu", half):
            return module(x)

    y = compare(action, (eager, resnet_fused.fuse(copy.deepcopy(eager))), runs=None)
    assert y.dtype == torch.float32
    converted = resnet_fused.fuse(copy.deepcopy(eager)).to(half)
    with record() as records:
        assert converted(x.to(half)).dtype == half
    assert records[0].backend == "cpu"
