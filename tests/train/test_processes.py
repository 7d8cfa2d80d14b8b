"""Training in 2 and 4 processes: the losses, weights and statistics of one process on the joined batches."""

from __future__ import annotations

import processes
import pytest
import small
import torch
from torch import nn

from resnet_fused.modules import record
from resnet_fused.train import batches, loop, optimise, parallel
from resnet_fused.train.processes import ALONE, Processes

SIZES = (1, 2, 4)
STEPS = {2: 3, 4: 2}  # in an epoch
# 17 images a step: 9+8 in two processes, 5+4+4+4 in four.
CHOSEN = {"model": "resnet20", "image": 8, "batch": 17, "sync_bn": True, "ema": 0.7, "lr": 0.05}


def test_portions_are_disjoint_equal_and_in_order():
    for length in (0, 1, 3, 4, 7, 16):
        for size in SIZES:
            portions = [Processes(rank, size).portion(range(length)) for rank in range(size)]
            assert [i for portion in portions for i in portion] == list(range(length))
            lengths = [len(portion) for portion in portions]
            assert lengths == sorted(lengths, reverse=True) and max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("test", (4, 256, 257, 260))
def test_every_test_image_is_tested_once_and_no_portion_is_empty(size, test):
    _, read = small.digits(train=16, test=test)
    parts = [list(batches.testing(read, ranks=Processes(rank, size))) for rank in range(size)]
    assert len({len(part) for part in parts}) == 1 and all(len(y) for part in parts for _, y in part)
    labels = torch.cat([y for step in zip(*parts) for _, y in step])
    assert torch.equal(labels, torch.cat([y for _, y in batches.testing(read)]))
    if size == 1:
        assert all(len(y) == batches.TEST_BATCH for _, y in parts[0][:-1])


def test_portions_of_training_make_up_the_batches_of_one_process():
    settings, read = small.digits(train=60)
    whole = list(batches.training(read, 18, 0, 1, 0))
    parts = [list(batches.training(read, 18, 0, 1, 0, ranks=Processes(rank, 4))) for rank in range(4)]
    assert len(whole) == 3 and [len(part[0][1]) for part in parts] == [5, 5, 4, 4]
    for pair, *shares in zip(whole, *parts):
        for i in range(2):
            assert torch.equal(pair[i], torch.cat([share[i] for share in shares]))


def _walk(ranks: Processes, kind: str | None, steps: int, **given) -> dict:
    """Two epochs of some steps in float64, each with an evaluation → losses, test scores, the state."""
    settings, read = small.digits(train=17 * steps, test=35, **{**CHOSEN, **given})

    def shard(network):
        parallel.shard(network.double(), settings, ranks)

    state = optimise.build(settings, 10, steps, *([shard] if kind == parallel.FSDP else []))
    networks = [network for network in (state.network, state.average) if network is not None]
    for network in networks:
        network.double()
    model = parallel.replicated(state.network, settings, ranks) if kind == parallel.DDP else state.network
    losses, tests = [], []
    for epoch in (1, 2):
        with record() as records:
            for pair in batches.training(read, settings.batch, 0, epoch, 0, ranks=ranks):
                losses.append(loop.train_epoch(model, state, [pair], settings, ranks=ranks).loss)
        assert {r.backend for r in records} == {"cpu"}
        for network in networks:
            ranks.share_buffers(network)
            tests.append(tuple(loop.evaluate(network, batches.testing(read, ranks=ranks), settings, ranks)))
    return {"losses": losses, "tests": tests, "state": state.state_dict()}


def _walks(rank: int, size: int) -> dict:
    ranks = Processes(rank, size)
    results = {kind: _walk(ranks, kind, STEPS[size]) for kind in parallel.KINDS}
    if size == 2:
        results |= {f"{kind} apart": _walk(ranks, kind, 2, sync_bn=False) for kind in parallel.KINDS}
    return results


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return processes.together(_walks, 2, tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return processes.together(_walks, 4, tmp_path_factory.mktemp("four"), 4)


def _assert_same_walk(results: list[dict], expected: dict) -> None:
    """In float64 within 1e-8, as in test_loop.py: losses, scores, weights, statistics, momenta and averages."""
    for result in results:
        assert len(result["losses"]) == len(expected["losses"])
        assert result["losses"] == pytest.approx(expected["losses"], abs=1e-8)
        for ours, theirs in zip(result["tests"], expected["tests"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-8)
    _assert_same_state(results[0]["state"], expected["state"])


def _assert_same_state(ours, theirs, path="state"):
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), path
    if isinstance(theirs, (dict, list)):
        for key in theirs if isinstance(theirs, dict) else range(len(theirs)):
            _assert_same_state(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(theirs, torch.Tensor):
        assert type(ours) is torch.Tensor and ours.shape == theirs.shape and ours.dtype == theirs.dtype, path
        scale = max(1.0, theirs.double().abs().max().item())
        assert (ours.double() - theirs.double()).abs().max() <= 1e-8 * scale, path
    else:
        assert ours == theirs, path


@pytest.mark.slow
@pytest.mark.parametrize("kind", parallel.KINDS)
def test_two_processes_walk_as_one(kind, two):
    _assert_same_walk([walk[kind] for walk in two], _walk(ALONE, None, STEPS[2]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", parallel.KINDS)
def test_four_processes_walk_as_one(kind, four):
    _assert_same_walk([walk[kind] for walk in four], _walk(ALONE, None, STEPS[4]))


class _Portions(nn.Module):
    """The network on the portions of a batch, each by its own statistics, of which the first portion's are kept."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        first, second = (Processes(rank, 2).portion(x) for rank in range(2))
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        late = self.network(second)
        for buffer, value in zip(self.network.buffers(), buffers):
            buffer.copy_(value)
        return torch.cat((self.network(first), late))


@pytest.mark.slow
@pytest.mark.parametrize("kind", parallel.KINDS)
def test_without_sync_bn_portions_have_statistics_of_their_own(kind, two, monkeypatch):
    """And running ones are the first process's, also while a shard's own are others."""
    monkeypatch.setattr(parallel, "replicated", lambda network, settings, ranks: _Portions(network))
    expected = _walk(ALONE, parallel.DDP, 2, sync_bn=False)
    _assert_same_walk([walk[f"{kind} apart"] for walk in two], expected)
