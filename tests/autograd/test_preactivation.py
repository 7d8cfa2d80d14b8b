"""The pre-activation chain and batch norm with ReLU: derivatives of every order against PyTorch's own operations."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from resnet_fused.autograd import BatchNorm, Conv, Norm, PreChain, PreUnit, norm_act, preactivation_chain

EPS = 1e-3
ABSENT = BatchNorm(None, None, None, None)
# Numerical differentiation moves an input by 1e-6; ReLU arguments stay this far from 0.
MARGIN = 1e-4


class Case(NamedTuple):
    depth: int
    shortcut: str  # none, identity, projection or given
    frozen: bool
    first: bool = True  # whether a batch norm stands before the first convolution
    scale: float = 1.0

    @property
    def id(self):
        words = [str(self.depth), self.shortcut, "frozen" if self.frozen else "training"]
        return "-".join(words + ([] if self.first else ["plain first"]) + (["scaled"] if self.scale != 1 else []))


CASES = [Case(*c) for c in itertools.product((1, 2, 3), ("none", "identity", "projection", "given"), (False, True),
                                             (True, False), (1.0, 0.5))]  # fmt: skip
# Each shortcut, frozen and not, with and without the rest.
FEW = [c for i, c in enumerate(CASES) if i % 7 == 0 or (c.depth == 2 and c.first and c.scale == 1 and not c.frozen)]


class Drawn(NamedTuple):
    """A chain on x with C = 3; `values`: x, the shortcut if given, weight, gamma, beta of items that have them."""

    case: Case
    spec: PreChain
    values: list
    running: list  # per item

    def unflatten(self, values):
        values = iter(values)
        x = next(values)
        shortcut = next(values) if self.spec.given else None
        parameters = []
        for norm, running in zip(self.spec.norms(), self.running):
            weight = next(values)
            parameters.append((weight, ABSENT if norm is None else BatchNorm(next(values), next(values), *running)))
        return x, parameters, shortcut

    def fused(self, *values):
        return preactivation_chain(self.spec, *self.unflatten(values))[0]

    def eager(self, *values, arguments=None):
        x, parameters, shortcut = self.unflatten(values)
        y = first = x
        for i, (unit, (weight, bn)) in enumerate(zip(self.spec.units, parameters)):
            operand = y
            if unit.norm is not None:
                z = F.batch_norm(y, bn[2], bn[3], bn.weight, bn.bias, not self.case.frozen, 0.0, EPS)
                if arguments is not None:
                    arguments.append(z.detach())
                operand = torch.relu(z)
            first = operand if i == 0 else first
            y = F.conv2d(operand, weight, None, *unit.conv)
        y = y * self.spec.scale
        if self.spec.projection:
            y = y + F.conv2d(first, parameters[-1][0], None, *self.spec.projection[0])
        if self.spec.identity:
            y = y + x
        return y if shortcut is None else y + shortcut


def _conv(kernel, stride):
    return Conv((stride, stride), (kernel // 2,) * 2, (1, 1), 1)


def _draw(case: Case, backend: str, seed: int) -> Drawn:
    generator = torch.Generator().manual_seed(seed)

    def randn(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    stride, out = (1, 3) if case.shortcut in ("none", "identity") else (2, 4)
    units, values, running, channels = [], [randn(2, 3, 4, 4)], [], 3
    if case.shortcut == "given":
        values.append(randn(2, out, 2, 2))
    for i in range(case.depth):
        kernel, wide = (3 if i % 2 == 0 else 1), (out if i + 1 == case.depth else 5)
        norm = Norm(not case.frozen, EPS) if i or case.first else None
        units.append(PreUnit(norm, _conv(kernel, stride if i == 0 else 1)))
        values.append(randn(wide, channels, kernel, kernel))
        values += [1 + 0.3 * randn(channels), randn(channels)] if norm else []
        running.append((randn(channels), 0.5 + randn(channels).square()) if case.frozen else (None, None))
        channels = wide
    projection = ()
    if case.shortcut == "projection":
        projection = (_conv(1, stride),)
        values.append(randn(out, 3, 1, 1))
        running.append((None, None))
    spec = PreChain(
        backend, tuple(units), projection, case.shortcut == "identity", case.shortcut == "given", case.scale
    )
    return Drawn(case, spec, values, running)


def _clear(case: Case, backend="cpu") -> Drawn:
    for seed in range(1000):
        drawn, arguments = _draw(case, backend, seed), []
        drawn.eager(*drawn.values, arguments=arguments)
        if all(a.abs().min() > MARGIN for a in arguments):
            return drawn
    raise AssertionError("no draw keeps clear of the kinks")


def _leaves(drawn):
    return [t.clone().requires_grad_() for t in drawn.values]


def _close(ours, theirs):
    # 1e-9 of the largest: float64 sums of some hundred terms, amplified by 1/σ in three batch norms.
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * max(1.0, b.abs().max().item()))


def _slow_but_few():
    return [pytest.param(c, id=c.id, marks=() if c in FEW else pytest.mark.slow) for c in CASES]


@pytest.mark.parametrize("case", _slow_but_few())
@pytest.mark.parametrize("backend", ("cpu", "reference", "library"))
def test_first_derivatives(case, backend):
    """All of them, and each alone: what is not asked for is not computed, and the rest stays right."""
    drawn = _clear(case, backend)
    leaves = _leaves(drawn)
    ours, theirs = drawn.fused(*leaves), drawn.eager(*leaves)
    _close([ours], [theirs])
    cotangent = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).mul(5).cos().view_as(ours)
    expected = torch.autograd.grad(theirs, leaves, cotangent)
    _close(torch.autograd.grad(ours, leaves, cotangent), expected)
    for i, gradient in enumerate(expected):
        alone = [t.clone().requires_grad_(i == j) for j, t in enumerate(drawn.values)]
        _close(torch.autograd.grad(drawn.fused(*alone), alone[i], cotangent), [gradient])


@pytest.mark.parametrize("case", _slow_but_few())
def test_second_derivatives_and_tangents(case):
    drawn = _clear(case)
    leaves = _leaves(drawn)
    seconds = []
    for function in (drawn.fused, drawn.eager):
        out = function(*leaves)
        cotangent = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out).requires_grad_()
        first = torch.autograd.grad(out, leaves, cotangent, create_graph=True)
        loss = sum(gradient.square().sum() for gradient in first)
        seconds.append(torch.autograd.grad(loss, [*leaves, cotangent], materialize_grads=True))
    _close(*seconds)
    tangents = tuple(t.cos() for t in drawn.values)
    _close(*([torch.func.jvp(f, tuple(drawn.values), tangents)[1]] for f in (drawn.fused, drawn.eager)))


GRADCHECKED = [c for c in FEW if c.depth == 2]


@pytest.mark.parametrize("case", GRADCHECKED, ids=lambda c: c.id)
def test_gradcheck(case):
    drawn = _clear(case)
    assert gradcheck(drawn.fused, _leaves(drawn), check_batched_grad=True)
    assert gradcheck(drawn.fused, _leaves(drawn), check_forward_ad=True, check_backward_ad=False,
                     check_undefined_grad=False, fast_mode=True)  # fmt: skip


@pytest.mark.parametrize("case", GRADCHECKED, ids=lambda c: c.id)
def test_gradgradcheck(case):
    drawn = _clear(case)
    assert gradgradcheck(drawn.fused, _leaves(drawn), check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("case", GRADCHECKED[:4], ids=lambda c: c.id)
def test_transforms(case):
    """vmap over inputs, and per-sample gradients."""
    drawn = _clear(case)
    x, *others = drawn.values
    xs = torch.stack((x, x.cos(), x + 1))
    results = []
    for function in (drawn.fused, drawn.eager):
        out = torch.func.vmap(lambda x: function(x, *others))(xs)
        loss = torch.func.grad(lambda x, w: function(x, *others[:-1], w).square().sum(), argnums=(0, 1))
        results.append([out, *torch.func.vmap(loss, in_dims=(0, None))(xs, others[-1])])
    _close(*results)


@pytest.mark.parametrize("frozen", (False, True))
def test_norm_act(frozen):
    torch.manual_seed(0)
    x, gamma, beta = torch.randn(3, 4, 3, 2, dtype=torch.float64), *torch.randn(2, 4, dtype=torch.float64)
    running = (None, None)
    if frozen:
        running = (torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.5)

    def fused(x, gamma, beta):
        return norm_act("cpu", Norm(not frozen, EPS), x, BatchNorm(gamma, beta, *running))[0]

    def eager(x, gamma, beta):
        return torch.relu(F.batch_norm(x, *running, gamma, beta, not frozen, 0.0, EPS))

    assert eager(x, gamma, beta).ne(0).any()
    leaves = [t.clone().requires_grad_() for t in (x, gamma, beta)]
    _close([fused(*leaves)], [eager(*leaves)])
    assert gradcheck(fused, leaves, check_forward_ad=True)
    assert gradgradcheck(fused, leaves, check_fwd_over_rev=True)
    for i in range(3):
        alone = [t.clone().requires_grad_(i == j) for j, t in enumerate((x, gamma, beta))]
        _close(*(torch.autograd.grad(f(*alone).square().sum(), alone[i]) for f in (fused, eager)))
