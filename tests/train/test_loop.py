"""Epochs: they learn, they count right, and fused and eager walk the same way."""

import copy

import pytest
import small
import torch
from torch import nn
from torch.nn import functional as F

import resnet_fused
from resnet_fused.modules import record
from resnet_fused.train import batches, loop, optimise

# Units of resnet20: a stem and nine blocks.
UNITS = 10


def _steps(settings, read, epochs=1, prepare=lambda network: network):
    """The loss of every step, and the network."""
    state = optimise.build(settings, 10, len(read.train) // settings.batch)
    prepare(state.network)
    losses = []
    for epoch in range(1, epochs + 1):
        for pair in batches.training(read, settings.batch, settings.seed, epoch, settings.mixup):
            losses.append(loop.train_epoch(state.network, state, [pair], settings).loss)
    return torch.tensor(losses, dtype=torch.float64), state.network


@pytest.mark.parametrize("precision", ("float32", "bfloat16", "float16"))
def test_a_few_steps_on_digits_lower_the_loss(precision):
    """Thirty steps of 16: from ln 10 = 2.3 or more to below 1.5 (0.7 seen), in every precision."""
    settings, read = small.digits(train=160, precision=precision, epochs=3, lr=0.05)
    with record() as records:
        losses, _ = _steps(settings, read, epochs=3)
    assert {r.backend for r in records} == {"cpu"} and len(records) == 30 * UNITS
    print(f"{precision}: {losses[:3].mean():.2f} to {losses[-5:].mean():.2f}")
    assert losses[:3].mean() > 2 and losses[-5:].mean() < 1.5


@pytest.mark.parametrize("layout", ("channels_last", "contiguous"))
def test_fused_and_eager_walk_the_same_way_in_float64(layout):
    """Ten steps within 1e-8, losses and weights, as in tests/test_networks.py: rounding of 1e-16 grows a thousandfold
    per few steps at most."""
    settings, read = small.digits(train=160, layout=layout)
    with record() as records:
        ours, network = _steps(settings, read, prepare=nn.Module.double)
    assert [r.backend for r in records] == ["cpu"] * (10 * UNITS)
    with resnet_fused.backend("eager"):
        theirs, twin = _steps(settings, read, prepare=nn.Module.double)
    print(f"largest difference of losses {(ours - theirs).abs().max():.2e}")
    assert len(ours) == 10 and (ours - theirs).abs().max() <= 1e-8
    for (name, a), b in zip(network.state_dict().items(), twin.state_dict().values()):
        assert (a.double() - b.double()).abs().max() <= 1e-8 * max(1.0, b.double().abs().max().item()), name


def test_losses_in_float32_along_a_float64_walk():
    """At each of ten steps, from float64's weights: our loss's error against float64 is at most 8 × eager's, in rms.

    8 is what Winograd's transforms may add. Free walks cannot be compared: a ReLU that rounding flips, in eager's other
    memory format as in ours, moves the losses after it by 1e-2.
    """
    settings, read = small.digits(train=160, lr=0.01, image=16)
    state, errors = optimise.build(settings, 10, 10), {"auto": [], "eager": []}
    state.network.double()
    for pair in batches.training(read, 16, 0, 1, 0):
        before = copy.deepcopy(state.network).float()
        truth = loop.train_epoch(state.network, state, [pair], settings).loss
        for name in errors:
            with resnet_fused.backend(name), torch.no_grad():
                loss = F.cross_entropy(before(pair[0].contiguous(memory_format=torch.channels_last)).double(), pair[1])
            errors[name].append(loss.item() - truth)
    ours, eagers = (torch.tensor(errors[name]).square().mean().sqrt() for name in errors)
    print(f"rms error {ours:.1e}, eager's {eagers:.1e}")
    assert 0 < ours <= 8 * eagers < 1e-4


class Constant(nn.Module):
    """Answers with its table's rows, whatever it is shown: row i for an image filled with i."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, x):
        return self.table[x[:, 0, 0, 0].long()]


def test_evaluation_is_a_mean_over_images():
    """Batches of unequal size weigh by their images. Within roundings of float32's cross entropy."""
    table = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 3, 2, 2)
    labels = table.argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    pairs = [(images[:7], labels[:7]), (images[7:], labels[7:])]
    score = loop.evaluate(Constant(table), pairs, small.settings())
    assert score.accuracy == 0.7
    assert score.loss == pytest.approx(F.cross_entropy(table.double(), labels).item(), rel=1e-6)


@pytest.mark.parametrize("layout", ("channels_last", "contiguous"))
def test_modes_and_layout(layout):
    """Training uses and updates batch statistics, also after an evaluation, which leaves them alone; images and weights
    come in the layout."""
    settings, read = small.digits(train=32, test=16, layout=layout)
    state = optimise.build(settings, 10, 2)
    strides, modes, bn = [], [], state.network.stem.bn

    def watch(network, inputs):
        strides.append(inputs[0].stride())
        modes.append((network.training, torch.is_grad_enabled()))

    state.network.register_forward_pre_hook(watch)
    for epoch, steps in ((1, 2), (2, 4)):
        loop.train_epoch(state.network, state, batches.training(read, 16, 0, epoch, 0), settings)
        assert bn.num_batches_tracked == steps
        before = bn.running_mean.clone()
        loop.evaluate(state.network, batches.testing(read), settings)
        assert torch.equal(bn.running_mean, before) and bn.num_batches_tracked == steps
    assert modes == [(True, True), (True, True), (False, False)] * 2
    expected = (192, 1, 24, 3) if layout == "channels_last" else (192, 64, 8, 1)
    assert set(strides) == {expected}
    weight = state.network.layer1[0].conv1.weight  # [16, 16, 3, 3]
    assert weight.stride() == ((144, 1, 48, 16) if layout == "channels_last" else (144, 9, 3, 1))


def test_a_wrapped_network_trains_too():
    """The loop calls what it is given; optimizer, average and checkpoint see the bare network."""

    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, x):
            self.calls += 1
            return self.module(x)

    settings, read = small.digits(train=64)
    pairs = list(batches.training(read, 16, 0, 1, 0))
    bare = optimise.build(settings, 10, 4)
    plain = loop.train_epoch(bare.network, bare, pairs, settings)
    state = optimise.build(settings, 10, 4)
    wrapper = Wrapper(state.network)
    assert loop.train_epoch(wrapper, state, pairs, settings) == plain and wrapper.calls == 4
    expected = copy.deepcopy(bare.state_dict()["model"])
    assert all(torch.equal(expected[k], v) for k, v in state.state_dict()["model"].items())


def test_label_smoothing_and_mixed_labels():
    """-Σ q log p with q = (1-ε)·y + ε/K (Szegedy et al. 2016, section 7); within float32's roundings."""
    settings, read = small.digits(train=16, label_smoothing=0.2, mixup=0.5, lr=1e-9)
    state = optimise.build(settings, 10, 1)
    (pair,) = batches.training(read, 16, 0, 1, 0.5)
    twin = copy.deepcopy(state.network).double()
    q = 0.8 * pair[1].double() + 0.2 / 10
    expected = -(q * twin(pair[0].double()).log_softmax(1)).sum(1).mean().item()
    assert loop.train_epoch(state.network, state, [pair], settings).loss == pytest.approx(expected, rel=1e-4)
