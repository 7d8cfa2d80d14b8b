"""nn.SyncBatchNorm in fused units, in 2 and 4 processes: every process's shard gets what one process gets for it out of
the joined batch."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import processes
import pytest
import torch
import torch.distributed as dist
from eager_pairs import BUILDERS, KINDS, buffers, image, outcome, randomize, step
from tolerance import DIRECT, WINOGRAD, assert_bit_equal, assert_oracle
from torch import nn

import resnet_fused
from resnet_fused import dispatch
from resnet_fused.models.conv_chain import ConvChain
from resnet_fused.modules import ORDERINGS, record

ORDERED = {"preactivation": ORDERINGS["preactivation"], "sum first": ORDERINGS["bn_after_add"]}


class Case(NamedTuple):
    kind: str
    shards: tuple[int, ...]  # images of each process
    dtype: torch.dtype = torch.float64
    settings: dict[str, Any] = {}  # of every batch norm: momentum, track_running_stats
    size: int = 6
    layout: torch.memory_format = torch.contiguous_format
    pairs: bool = False  # processes 0 and 1 are one group, 2 and 3 another

    def __str__(self) -> str:
        words = [self.kind, "+".join(map(str, self.shards)), str(self.dtype)[6:], *map(str, self.settings.items())]
        last = ["channels_last"] if self.layout is torch.channels_last else []
        return " ".join([*words, *last, str(self.size), *(["pairs"] if self.pairs else [])])


def _cases(*shards: tuple[int, ...]) -> list[Case]:
    """All kinds in float64 by each division of the batch, and in float32 by the first."""
    last = torch.channels_last
    kinds = (*KINDS, *ORDERED, "chain with biases")
    return [
        *(Case(kind, division) for kind in kinds for division in shards),
        *(Case(kind, shards[0], torch.float32, layout=last, size=8) for kind in kinds),
        *(Case("basic_projection", division, settings=settings, layout=last) for division in shards[:2]
          for settings in ({"momentum": None}, {"track_running_stats": False})),
    ]  # fmt: skip


CASES = {
    2: [*_cases((2, 2), (3, 1), (4, 0), (0, 4)),
        Case("basic", (1, 1), size=1)],  # a value a channel in each process: too few for one alone
    4: [*_cases((1, 1, 1, 1), (2, 1, 1, 0), (0, 0, 4, 0)),
        Case("bottleneck_projection", (2, 1, 3, 2), pairs=True), Case("stem", (2, 2, 4, 0), pairs=True)],
}  # fmt: skip


def _build(case: Case) -> nn.Module:
    """The eager module of a case, with plain batch norms."""
    torch.manual_seed(7)
    if case.kind == "chain with biases":
        module = nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
                               nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(inplace=True))  # fmt: skip
    elif case.kind in ORDERED:
        module = ORDERED[case.kind](8, 12, 2)
    else:
        module = BUILDERS[case.kind]()
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.__init__(child.num_features, **case.settings)
    return randomize(module.double()).to(case.dtype)


def _input(case: Case) -> torch.Tensor:
    x = image(case.kind, case.dtype, batch=sum(case.shards), size=case.size)
    return x.contiguous(memory_format=case.layout)


def _grad_out(y: torch.Tensor, first: int) -> torch.Tensor:
    """Rows from `first` on of a gradient that does not depend on the division."""
    generator = torch.Generator().manual_seed(3)
    whole = torch.randn(64, *y.shape[1:], generator=generator, dtype=torch.float64)
    return whole[first : first + len(y)].to(y.dtype)


def _fused(case: Case, group=None, before: bool = False) -> nn.Module:
    """The case's module, synchronized and fused; `before`: fused first."""
    module = _build(case)
    if case.kind == "chain with biases":
        return nn.SyncBatchNorm.convert_sync_batchnorm(ConvChain(*module), group)
    if before:
        return nn.SyncBatchNorm.convert_sync_batchnorm(resnet_fused.fuse(module), group)
    return resnet_fused.fuse(nn.SyncBatchNorm.convert_sync_batchnorm(module, group))


def _step(case: Case, rank: int, group) -> dict[str, Any]:
    first = sum(case.shards[:rank])
    x = _input(case)[first : first + case.shards[rank]]
    module = _fused(case, group, before=rank == 0)
    with record() as records:
        result = step(module, x, lambda y: _grad_out(y, first))
    return {**result, "backends": [r.backend for r in records]}


def _refusals(rank: int) -> dict[str, Any]:
    """What has no meaning for statistics that are shared, and what eager PyTorch says of a CPU."""
    case = Case("basic_projection", (2, 2))
    x = _input(case)[2 * rank : 2 * rank + 2]

    def second_derivative(module):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(module(leaf).square().sum(), leaf, create_graph=True)
        gradient.square().sum().backward()

    def forward_mode(module):
        with torch.autograd.forward_ad.dual_level():
            module(torch.autograd.forward_ad.make_dual(x, x))

    def eager(module):
        with resnet_fused.backend("eager"):
            module(x)

    actions = {
        "second derivative": second_derivative,
        "forward mode": forward_mode,
        "transform": lambda module: torch.func.grad(lambda value: module(value).sum())(x),
        "eager": eager,
        "hooks": lambda module: (module.conv1.register_forward_hook(lambda *_: None), module(x)),
    }
    results: dict[str, Any] = {}
    for name, action in actions.items():
        # Counting batches, too, is nothing that a transform allows.
        module = _fused(case._replace(settings={"track_running_stats": name != "transform"}))
        before = buffers(module)
        results[name] = (*(str(part) for part in outcome(action, module)), before, buffers(module))
    return results


def _frozen(rank: int) -> dict[str, Any]:
    """Units one of whose batch norms, or all, are in evaluation mode."""
    case, results = Case("basic", (3, 1)), {}
    for name in ("bn1", "bn2", "all"):
        module = _fused(case)
        (module if name == "all" else getattr(module, name)).eval()
        x = _input(case)[3 * rank : 3 + rank]
        with record() as records:
            results[name] = step(module, x, lambda y: _grad_out(y, 3 * rank))
        assert [r.backend for r in records] == ["cpu"]
    return results


def _measured(rank: int) -> str:
    """Why a unit runs what it runs, where all that can be is measured."""
    module, x = _fused(Case("basic", (3, 1))), _input(Case("basic", (3, 1)))[3 * rank : 3 + rank]
    with dispatch.measuring("always"), record() as records:
        step(module, x)
    return records[0].reason


def _others(rank: int) -> dict[str, Any]:
    return {"refusals": _refusals(rank), "frozen": _frozen(rank), "measured": _measured(rank)}


def _work(rank: int, size: int) -> dict[str, Any]:
    groups = [dist.new_group([i, i + 1]) for i in range(0, size, 2)] if size > 2 else [None]
    results: dict[str, Any] = {str(c): _step(c, rank, groups[rank // 2] if c.pairs else None) for c in CASES[size]}
    return results | (_others(rank) if size == 2 else {})


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return processes.together(_work, 2, tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return processes.together(_work, 4, tmp_path_factory.mktemp("four"), 4)


def _joined(case: Case, dtype: torch.dtype, ranks: range) -> dict[str, Any]:
    """One process on the images of these, in eager PyTorch; weights and images rounded to the case's dtype first."""
    first, last = sum(case.shards[: ranks.start]), sum(case.shards[: ranks.stop])
    with resnet_fused.backend("eager"):
        return step(_build(case).to(dtype), _input(case)[first:last].to(dtype), lambda y: _grad_out(y, first))


def _check(case: Case, results: list[dict[str, Any]]) -> None:
    for start in range(0, len(results), 2 if case.pairs else len(results)):
        ranks = range(start, start + 2) if case.pairs else range(len(results))
        parts = [results[rank][str(case)] for rank in ranks]
        truth, eager = _joined(case, torch.float64, ranks), _joined(case, case.dtype, ranks)
        assert all(set(part["backends"]) == {"cpu"} for part in parts)
        length = 72 * sum(case.shards) * case.size**2  # the longest sums: over 3×3 filters of 8 channels, over pixels

        def close(ours, theirs, true, name):
            if case.dtype is torch.float64:
                # The same equations, in another order of additions, as in eager_pairs: some 1e-15 a term.
                assert (ours - true).abs().max() <= 1e-10 * max(1.0, true.abs().max()), name
            else:
                factor = WINOGRAD if case.kind.startswith(("basic", "chain", *ORDERED)) else DIRECT
                assert_oracle(ours, theirs, true, length, name, terms=true.abs().max().item(), factor=factor)

        for name in ("y", "dx"):
            close(torch.cat([part[name] for part in parts]), eager[name], truth[name], name)
        for i, (theirs, true) in enumerate(zip(eager["dp"], truth["dp"])):
            close(sum(part["dp"][i] for part in parts), theirs, true, f"parameter {i}")
        for name, true in truth["buffers"].items():
            for part in parts:
                assert_bit_equal(part["buffers"][name], parts[0]["buffers"][name])
            if true.is_floating_point():
                close(parts[0]["buffers"][name], eager["buffers"][name], true, name)
            else:
                assert torch.equal(parts[0]["buffers"][name], true), name


@pytest.mark.parametrize("case", CASES[2][:-1], ids=str)
def test_two_processes_equal_one(case, two):
    _check(case, two)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[4], ids=str)
def test_four_processes_equal_one(case, four):
    _check(case, four)


def test_one_value_a_channel_in_each_process(two):
    """Which a process alone refuses."""
    _check(CASES[2][-1], two)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        resnet_fused.fuse(_build(CASES[2][-1]))(_input(CASES[2][-1])[:1])


def test_frozen_members(two):
    """A batch norm in evaluation mode shares nothing; the others of its unit do, as in one process on all images."""
    for name in ("bn1", "bn2", "all"):
        case = Case("basic", (3, 1))
        module = _build(case)
        (module if name == "all" else getattr(module, name)).eval()
        truth = step(module, _input(case), lambda y: _grad_out(y, 0))
        parts = [result["frozen"][name] for result in two]
        # float64, as in _check
        assert torch.allclose(torch.cat([part["dx"] for part in parts]), truth["dx"], rtol=1e-10, atol=1e-10)
        for i, true in enumerate(truth["dp"]):
            assert torch.allclose(sum(part["dp"][i] for part in parts), true, rtol=1e-10, atol=1e-10), (name, i)
        for key, true in truth["buffers"].items():
            assert torch.allclose(parts[1]["buffers"][key], true, rtol=1e-10, atol=1e-10), (name, key)


def test_nothing_is_measured(two):
    """A trial would talk to processes that make none, and they may come to another choice."""
    assert [result["measured"] for result in two] == ["SIMD kernels for cpu float64"] * 2


@pytest.mark.parametrize("name, kind, words", (
    ("second derivative", "RuntimeError", "a synchronized batch norm has no second derivative"),
    ("forward mode", "ValueError", "SyncBatchNorm expected input tensor to be on GPU"),
    ("transform", "ValueError", "SyncBatchNorm expected input tensor to be on GPU"),
    ("eager", "ValueError", "SyncBatchNorm expected input tensor to be on GPU"),
    ("hooks", "ValueError", "SyncBatchNorm expected input tensor to be on GPU"),
))  # fmt: skip
def test_what_is_refused(name, kind, words, two):
    """In eager's words where eager refuses too; then nothing was changed."""
    for result in two:
        found, said, before, after = result["refusals"][name]
        assert kind in found and words in said, (found, said)
        for key in before if kind == "ValueError" else ():
            assert_bit_equal(after[key], before[key])


def test_a_group_of_one_process_is_not_measured(tmp_path):
    """Eager's raises on a CPU as soon as there is a group."""
    case = Case("basic_projection", (4,))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with dispatch.measuring("always"), record() as records:
            ours = step(_fused(case), _input(case))
    finally:
        dist.destroy_process_group()
    assert [r.backend for r in records] == ["cpu"]
    torch.testing.assert_close(ours, step(resnet_fused.fuse(_build(case)), _input(case)), rtol=0, atol=0)


def test_without_a_group_it_is_a_plain_batch_norm():
    """In training, in evaluation and without running statistics: bit by bit what nn.BatchNorm2d becomes."""
    case = Case("bottleneck_projection", (4,))
    x = _input(case)
    for train in (True, False):
        for settings in ({}, {"track_running_stats": False}):
            case = case._replace(settings=settings)
            plain, synchronized = resnet_fused.fuse(_build(case)).train(train), _fused(case).train(train)
            with record() as records:
                expected, ours = step(plain, x), step(copy.deepcopy(synchronized), x)
            assert [r.backend for r in records] == ["cpu", "cpu"]
            torch.testing.assert_close(ours, expected, rtol=0, atol=0)
