"""Schedules, weight decay, exponential averages and loss scaling against plain references."""

import copy
import math

import pytest
import small
import torch
from torch.optim import lr_scheduler

from resnet_fused.train import batches, loop, optimise


def _rates(schedule, epochs=8, warmup=2, steps=5):
    """The rates of every step, from the optimizer."""
    settings = small.settings(schedule=schedule, epochs=epochs, warmup=warmup, lr=0.3)
    state = optimise.build(settings, 10, steps)
    rates = []
    for _ in range(epochs * steps):
        rates.append(state.optimizer.param_groups[0]["lr"])
        state.optimizer.step()
        state.scheduler.step()
    return rates


def _torchs(make, count):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler, rates = make(optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_with_warm_up():
    """torch's own, which is recursive: 40 roundings of 1e-16."""
    theirs = _torchs(lambda o: lr_scheduler.SequentialLR(o, [
        lr_scheduler.LinearLR(o, start_factor=0.01, total_iters=10), lr_scheduler.CosineAnnealingLR(o, T_max=30),
    ], milestones=[10]), 40)  # fmt: skip
    ours = _rates("cosine")
    assert ours == pytest.approx(theirs, abs=1e-13)
    assert ours[0] == pytest.approx(0.003) and ours[10] == 0.3 and ours[25] == pytest.approx(0.15)


def test_steps():
    theirs = _torchs(lambda o: lr_scheduler.MultiStepLR(o, milestones=[20, 30], gamma=0.1), 40)
    assert _rates("step", warmup=0) == pytest.approx(theirs, abs=1e-15)


def test_constant():
    assert set(_rates("constant", warmup=0)) == {0.3}


def test_decay_spares_batch_norms_and_biases_where_asked():
    def step(**given):
        settings = small.settings(lr=0.5, weight_decay=0.1, **given)
        state = optimise.build(settings, 10, 1)
        before = {name: p.detach().clone() for name, p in state.network.named_parameters()}
        for p in state.network.parameters():
            p.grad = torch.zeros_like(p)
        state.optimizer.step()
        return before, dict(state.network.named_parameters())

    # Nesterov's first step by the decay alone: p - lr·(1 + momentum)·decay·p, within two roundings of float32
    before, after = step()
    for name, p in before.items():
        torch.testing.assert_close(after[name].detach(), p * (1 - 0.5 * 1.9 * 0.1), rtol=1e-6, atol=0)
    before, after = step(no_bias_decay=True)
    vectors = [name for name, p in before.items() if p.ndim == 1]
    assert len(vectors) == 2 * 19 + 1 and "fc.bias" in vectors
    for name, p in before.items():
        factor = 1 if name in vectors else 1 - 0.5 * 1.9 * 0.1
        torch.testing.assert_close(after[name].detach(), p * factor, rtol=1e-6, atol=0)


def test_average_of_weights_and_statistics():
    """a₁ = w₁, aₙ = d·aₙ₋₁ + (1-d)·wₙ; within some roundings of float32."""
    settings, read = small.digits(train=64, ema=0.7)
    state = optimise.build(settings, 10, 4)
    average = None

    def follow(_):
        nonlocal average
        now = {k: v.double() for k, v in state.network.state_dict().items() if v.is_floating_point()}
        average = copy.deepcopy(now) if average is None else {k: 0.7 * average[k] + 0.3 * now[k] for k in now}

    loop.train_epoch(state.network, state, batches.training(read, 16, 0, 1, 0), settings, follow)
    kept = state.average.module.state_dict()
    assert len(average) > 90 and math.isclose(sum(k.endswith("running_var") for k in average), 19)
    for name, value in average.items():
        torch.testing.assert_close(kept[name].double(), value, rtol=1e-6, atol=1e-6)
        assert name.endswith("num_batches_tracked") or not torch.equal(kept[name], state.network.state_dict()[name])


def test_loss_scale_skips_a_step_that_overflows():
    """float16: gradients beyond its range leave the weights as they were, and the scale is halved."""
    settings, read = small.digits(train=16, precision="float16")
    state = optimise.build(settings, 10, 1)
    (pair,) = batches.training(read, 16, 0, 1, 0)
    before = {name: p.detach().clone() for name, p in state.network.named_parameters()}
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 2.0**40})
    loop.train_epoch(state.network, state, [pair], settings)
    assert all(torch.equal(before[name], p) for name, p in state.network.named_parameters())
    assert state.scaler.get_scale() == 2.0**39
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 2.0**10})
    state.scheduler.last_epoch = 0
    state.optimizer.param_groups[0]["lr"] = 0.1
    loop.train_epoch(state.network, state, [pair], settings)
    assert all(not torch.equal(before[name], p) for name, p in state.network.named_parameters())
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in state.network.parameters())
