"""Residual chains and stems drawn for a problem, with an independent eager model of them that reports its kinks."""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from problems import ChainProblem
from tolerance import pool_gap

from resnet_fused.autograd import BatchNorm, Chain, Conv, Unit, residual_chain, stem

# Numerical differentiation moves an input by 1e-6; ReLU arguments and pool gaps stay this far from where it matters.
MARGIN = 1e-4
MODES = ("training", "frozen", "mixed", "mixed_frozen_first")


class Draw(NamedTuple):
    """`units` are in the order of the chain, projection last; `inputs` are x, weight, gamma, beta of each, and the
    shortcut if it is given."""

    units: tuple[Unit, ...]
    shortcut: str
    inputs: list[torch.Tensor]
    running: list[tuple]  # per unit (mean, var), or (None, None)

    def parameters(self, inputs):
        for i, running in enumerate(self.running):
            weight, gamma, beta = inputs[1 + 3 * i : 4 + 3 * i]
            yield weight, BatchNorm(gamma, beta, *running)

    def chain(self, backend) -> Chain:
        count = len(self.units) - (self.shortcut == "projection")
        kinds = (self.shortcut == kind for kind in ("identity", "given"))
        return Chain(backend, self.units[:count], self.units[count:], *kinds)

    def given(self, inputs):
        return inputs[-1] if self.shortcut == "given" else None

    def fused(self, backend):
        """The chain as a function of its inputs."""
        spec = self.chain(backend)
        return lambda *inputs: residual_chain(spec, inputs[0], tuple(self.parameters(inputs)), self.given(inputs))[0]

    def eager(self, *inputs, arguments=None):
        """The same by F.conv2d and F.batch_norm; ReLU arguments are appended to `arguments`."""
        seen = [] if arguments is None else arguments

        def relu(z):
            seen.append(z.detach())
            return torch.relu(z)

        y = x = inputs[0]
        parameters = list(self.parameters(inputs))
        count = len(self.units) - (self.shortcut == "projection")
        for i in range(count):
            y = _conv_bn(self.units[i], y, *parameters[i])
            y = relu(y) if self.units[i].relu and i + 1 < count else y
        if self.shortcut == "projection":
            y = y + _conv_bn(self.units[-1], x, *parameters[-1])
        elif self.shortcut in ("identity", "given"):
            y = y + (x if self.shortcut == "identity" else self.given(inputs))
        return relu(y) if self.units[count - 1].relu else y


class StemDraw(Draw):
    def fused(self, backend):
        def run(*inputs):
            ((weight, bn),) = self.parameters(inputs)
            return stem(backend, self.units[0], inputs[0], weight, bn)[0]

        return run

    def eager(self, *inputs, arguments=None):
        ((weight, bn),) = self.parameters(inputs)
        z = _conv_bn(self.units[0], inputs[0], weight, bn)
        if arguments is not None:
            arguments += [z.detach(), torch.tensor(pool_gap(z.detach()))]
        return F.max_pool2d(torch.relu(z), 3, 2, 1)


def _conv_bn(unit, x, weight, bn):
    raw = F.conv2d(x, weight, None, *unit.conv)
    return F.batch_norm(raw, bn.running_mean, bn.running_var, bn.weight, bn.bias, unit.batch_stats, 0.0, unit.eps)


def _unit(stride, kernel, batch_stats, relu=True, groups=1):
    pad = kernel // 2
    return Unit(Conv((stride, stride), (pad, pad), (1, 1), groups), batch_stats, 1e-3, relu)


def _draw(cls, units, sizes, shortcut, x_size, generator, zero_gamma):
    def randn(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    inputs, running = [randn(*x_size)], []
    for unit, size in zip(units, sizes):
        gamma = 1 + 0.3 * randn(size[0])
        if zero_gamma:
            gamma[0] = 0
        inputs += [randn(*size), gamma, randn(size[0])]
        running.append((None, None) if unit.batch_stats else (randn(size[0]), 0.5 + randn(size[0]).square()))
    if shortcut == "given":
        inputs.append(randn(*cls(units, "none", inputs, running).eager(*inputs).shape))
    return cls(units, shortcut, inputs, running)


def draw(problem: ChainProblem, mode: str, zero_gamma=True, last_relu=True, margin=MARGIN) -> Draw:
    """Inputs in float64, redrawn until no ReLU argument is within `margin` of 0."""
    frozen = {
        "training": itertools.repeat(False), "frozen": itertools.repeat(True),
        "mixed": itertools.cycle((False, True)), "mixed_frozen_first": itertools.cycle((True, False)),
    }[mode]  # fmt: skip
    units, sizes, channels = [], [], problem.C
    for i, size in enumerate(problem.units):
        relu = last_relu or i + 1 < len(problem.units)
        units.append(_unit(size.stride, size.kernel, not next(frozen), relu))
        sizes.append((size.K, channels, size.kernel, size.kernel))
        channels = size.K
    if problem.shortcut == "projection":
        units.append(_unit(problem.stride, 1, not next(frozen), False))
        sizes.append((channels, problem.C, 1, 1))
    x_size = (problem.N, problem.C, problem.H, problem.W)
    return _redraw(Draw, tuple(units), sizes, problem.shortcut, x_size, zero_gamma, margin)


def draw_stem(mode: str, zero_gamma=False, margin=MARGIN, size=(2, 3, 9, 10)) -> StemDraw:
    """A stem with 3 filters, 7x7/2 cut to 3x3/2; a zero gamma would tie all of a channel's pool windows."""
    unit = _unit(2, 3, mode == "training")
    return _redraw(StemDraw, (unit,), [(3, size[1], 3, 3)], "none", size, zero_gamma, margin)


def _redraw(cls, units, sizes, shortcut, x_size, zero_gamma, margin):
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        drawn = _draw(cls, units, sizes, shortcut, x_size, generator, zero_gamma)
        arguments = []
        drawn.eager(*drawn.inputs, arguments=arguments)
        if all(a.abs().min() > margin for a in arguments):
            return drawn
    raise AssertionError("no draw keeps clear of the kinks: the problem is too large for the margin")
