"""Only some inputs require a gradient: those get eager's, the others none, and no work is done for them."""

import itertools

import pytest
import torch
from chains import MODES, draw, draw_stem
from problems import CHAINS

PROBLEMS = {p.id: p for p in CHAINS}
EVERYDAY = ("single", "basic", "bottleneck_projection")
CHAIN_NAMES = [pytest.param(n, marks=() if n in EVERYDAY else pytest.mark.slow) for n in PROBLEMS]


def _subsets(units):
    """Name → positions among (x, weight, gamma, beta, weight, …)."""
    count = 1 + 3 * units
    kinds = {kind: range(offset, count, 3) for offset, kind in enumerate(("weights", "gammas", "betas"), 1)}
    yield "x", (0,)
    yield from kinds.items()
    yield "all but x", range(1, count)
    yield "first unit frozen", (0, *range(4, count))
    yield "last unit only", range(count - 3, count)
    yield "first unit only", range(1, 4)
    yield "first weight", (1,)
    yield "last beta", (count - 1,)
    for i in range(units):
        yield f"gamma {i}", (2 + 3 * i,)
        yield f"x and beta {i}", (0, 3 + 3 * i)


def _compare(drawn, chosen, backend="cpu"):
    # 1e-9 of float64: sums of some hundred terms keep 13 digits, and no mask can differ (the draw's margin).
    leaves = [t.clone().requires_grad_(i in chosen) for i, t in enumerate(drawn.inputs)]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    ours, theirs = drawn.fused(backend)(*leaves), drawn.eager(*leaves)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    cotangent = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).view_as(ours).sin()
    ours, theirs = torch.autograd.grad(ours, wanted, cotangent), torch.autograd.grad(theirs, wanted, cotangent)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    return leaves


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CHAIN_NAMES)
def test_chain_subsets(name, mode):
    drawn = draw(PROBLEMS[name], mode)
    for subset, chosen in _subsets(len(drawn.units)):
        _compare(drawn, tuple(chosen))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["single", pytest.param("basic", marks=pytest.mark.slow)])
def test_every_subset(name, mode):
    drawn = draw(PROBLEMS[name], mode)
    positions = range(len(drawn.inputs))
    for size in range(1, len(drawn.inputs) + 1):
        for chosen in itertools.combinations(positions, size):
            _compare(drawn, chosen)


@pytest.mark.parametrize("mode", ["training", "frozen"])
def test_stem_subsets(mode):
    drawn = draw_stem(mode)
    for size in range(1, 5):
        for chosen in itertools.combinations(range(4), size):
            _compare(drawn, chosen)


@pytest.mark.parametrize("name", ["basic", "bottleneck_projection"])
def test_second_derivatives_of_subsets(name):
    """d/d(chosen) of |dL/dx|², as a gradient penalty takes it."""
    drawn = draw(PROBLEMS[name], "mixed")
    for subset, chosen in _subsets(len(drawn.units)):
        results = []
        for function in (drawn.fused("cpu"), drawn.eager):
            leaves = [t.clone().requires_grad_(i in (0, *chosen)) for i, t in enumerate(drawn.inputs)]
            out = function(*leaves)
            (dx,) = torch.autograd.grad(out.square().sum(), leaves[0], create_graph=True)
            wanted = [leaf for i, leaf in enumerate(leaves) if i in chosen]
            results.append(torch.autograd.grad(dx.square().sum(), wanted, allow_unused=True))
        for a, b in zip(*results):
            assert (a is None) == (b is None), subset
            if a is not None:
                # Second derivatives amplify by 1/σ²; eight digits of float64's sixteen remain.
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * b.abs().max().item() + 1e-12)


def test_no_graph_without_grad():
    drawn = draw(PROBLEMS["basic"], "training")
    assert not drawn.fused("cpu")(*drawn.inputs).requires_grad
    with torch.no_grad():
        assert drawn.fused("cpu")(*(t.clone().requires_grad_() for t in drawn.inputs)).grad_fn is None


@pytest.mark.parametrize("mode", ["training", "frozen"])
def test_saved_tensors_are_freed_and_checked(mode):
    drawn = draw(PROBLEMS["basic"], mode)
    leaves = [t.clone().requires_grad_() for t in drawn.inputs]
    out = drawn.fused("cpu")(*leaves)
    out.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        out.sum().backward()
    out = drawn.fused("cpu")(*leaves)
    with torch.no_grad():
        leaves[1].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
