"""The pre-activation chain: batch norm and ReLU before each convolution, and a shortcut, as one autograd node.

Training (BN fission; z_i is the batch norm before convolution i, or none before the first):

    raw_1 = conv_1(relu(z_1(x))), raw_i = conv_i(relu(z_i(raw_{i-1}))), out = scale·raw_n + shortcut

The statistics of x are a pass of their own, those of raw_i come with it; each batch norm and ReLU is the prologue of
the convolution that reads it, the sum the epilogue of the last one. The shortcut is x, a convolution of the activated
input relu(z_1(x)), or a tensor that is given. Saved: x and raw_1 … raw_{n-1}, never an activated tensor. Frozen batch
norms run alike: the gradients that go through their mean and variance are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from resnet_fused import ops
from resnet_fused.autograd import eager
from resnet_fused.autograd.chain import (
    BatchNorm,
    Conv,
    apply,
    apply_backward,
    batch_affine,
    batch_means,
    frozen_affine,
    pack,
    unpack,
)


# Not tuples: torch.func takes a Function's tuple arguments apart, but not their tangents.
@dataclass(frozen=True)
class Norm:
    """A batch norm that ReLU follows."""

    batch_stats: bool  # statistics of the batch; False: running statistics ("frozen")
    eps: float
    group: dist.ProcessGroup | None = None  # as a Unit's


@dataclass(frozen=True)
class PreUnit:
    """A convolution and the batch norm before it, if there is one."""

    norm: Norm | None
    conv: Conv


@dataclass(frozen=True)
class PreChain:
    backend: str
    units: tuple[PreUnit, ...]
    projection: tuple[Conv, ...] = ()  # of the activated input: one or none
    identity: bool = False
    given: bool = False  # the shortcut is a tensor of its own
    scale: float = 1.0  # of the last convolution's result

    def norms(self) -> tuple[Norm | None, ...]:
        """One for each item: the units, and the projection, which has none."""
        return (*(unit.norm for unit in self.units), *(None for _ in self.projection))

    def sums(self) -> bool:
        """Whether the last convolution has an epilogue."""
        return bool(self.projection) or self.identity or self.given or self.scale != 1


class Item(NamedTuple):
    """A unit or the projection, with all that the backward pass knows of it."""

    weight: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    kept: Tensor | None  # its convolution's output which the next unit reads; None for the last
    affine: Tensor | None


def norm_affine(kernels, norm: Norm, x: Tensor, stats: Tensor | None, bn: BatchNorm) -> tuple[Tensor, Tensor | None]:
    """x's affine, from its statistics or, frozen, from the running ones; and the statistics as they are returned."""
    if norm.batch_stats:
        return batch_affine(kernels, norm, x, stats, bn)
    return frozen_affine(kernels, bn, norm.eps, _acc(x)), None


def _acc(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _scaling(x: Tensor, channels: int, scale: float) -> Tensor:
    """The affine of z(x) = scale·x."""
    options = {"dtype": _acc(x), "device": x.device}
    zero, one = torch.zeros(channels, **options), torch.ones(channels, **options)
    return torch.stack((zero, one * scale, zero, one))


def _by_batch(norm: Norm | None) -> bool:
    return norm is not None and norm.batch_stats


def _forward(spec: PreChain, x: Tensor, shortcut: Tensor | None, tensors):
    """→ out, and per item (units, projection) what is kept, its affine, its statistics."""
    kernels, n = ops.get(spec.backend), len(spec.units)
    items = [(tensors[i], BatchNorm(*tensors[i + 1 : i + 5])) for i in range(0, len(tensors), 5)]
    norms, results = spec.norms(), []
    y, residual = x, x if spec.identity else shortcut
    stats = kernels.bn_statistics(x) if _by_batch(norms[0]) else None
    for i, (unit, (weight, bn)) in enumerate(zip(spec.units, items)):
        affine, stats = (None, None) if unit.norm is None else norm_affine(kernels, unit.norm, y, stats, bn)
        read = (affine, affine is not None)
        results.append((affine, stats))
        if i == 0 and spec.projection:
            residual, _ = kernels.conv_fprop(x, items[n][0], *spec.projection[0], *read, False, None, None, None, False)
        statistics, epilogue = i + 1 < n and _by_batch(norms[i + 1]), (None, None)
        if i + 1 == n and spec.sums():
            epilogue = (_scaling(x, weight.shape[0], spec.scale), residual)
        y, stats = kernels.conv_fprop(y, weight, *unit.conv, *read, statistics, *epilogue, None, False)
        results[i] = (y if i + 1 < n else None, *results[i])
    return y, [*results, *[(None, None, None)] * len(spec.projection)]


class _PreactivationChain(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(spec, x, shortcut, *tensors):
        out, results = _forward(spec, x, shortcut, tensors)
        return (out, *(t for result in results for t in result))

    @staticmethod
    def setup_context(ctx, inputs, output):
        spec, x, _, *tensors = inputs
        _, *results = output
        ctx.spec = spec
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(t for t in results if t is not None))
        parameters = [tensors[i + j] for i in range(0, len(tensors), 5) for j in range(3)]
        saved = (x, *parameters, *results[::3], *results[1::3])
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx, dout, *_):
        spec, needs = ctx.spec, ctx.needs_input_grad
        blanks = [None] * len(needs)
        if dout is None:
            return tuple(blanks)
        blanks[2] = dout if needs[2] else None  # the shortcut's
        # positions of x and every weight, gamma and beta among the inputs (spec, x, shortcut, 5 per item)
        positions = [1, *(i + j for i in range(3, len(needs), 5) for j in range(3))]
        wanted = tuple(needs[i] for i in positions)
        if any(wanted):
            grads = apply_backward(_PreactivationChainBackward, spec, pack(wanted), dout, *ctx.saved_tensors)
            for i, grad in zip((i for i, want in zip(positions, wanted) if want), grads):
                blanks[i] = grad
        return tuple(blanks)


class _PreactivationChainJvp(_PreactivationChain):
    @staticmethod
    def jvp(ctx, _, *tangents):
        x, parameters, _, affines = _unpack_saved(ctx.spec, eager.alive(ctx.saved_tensors))
        tangents = (*tangents[:2], *(tangents[i + j] for i in range(2, len(tangents), 5) for j in range(3)))
        shortcut = None if tangents[1] is None else torch.zeros_like(tangents[1])
        out = eager.jvp(_reference(ctx.spec, affines), (x, shortcut, *parameters), tangents)
        return out, *([None] * 3 * len(affines))


class _PreactivationChainBackward(torch.autograd.Function):
    """The fused backward; its own derivatives are those of the reference's backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(spec, wanted, dout, *saved):
        x, parameters, kept, affines = _unpack_saved(spec, saved)
        items = [Item(*parameters[3 * i : 3 * i + 3], *pair) for i, pair in enumerate(zip(kept, affines))]
        return _backward(spec, unpack(wanted, 1 + len(parameters)), dout, x, items)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.spec, wanted, dout, *saved = inputs
        ctx.wanted = unpack(wanted, 1 + 3 * len(ctx.spec.norms()))
        ctx.save_for_backward(dout, *saved)
        ctx.save_for_forward(dout, *saved)

    @staticmethod
    def _gradient(ctx):
        """The reference's backward as a function of (dout, x, *parameters), and their values."""
        dout, *saved = eager.alive(ctx.saved_tensors)
        x, parameters, _, affines = _unpack_saved(ctx.spec, saved)
        reference = _reference(ctx.spec, affines)

        def function(x, *parameters):
            return reference(x, None, *parameters)

        def gradient(dout, *inputs):
            return eager.vjp(function, inputs, ctx.wanted, dout)

        return gradient, (dout, x, *parameters)

    @staticmethod
    def backward(ctx, *cotangents):
        gradient, primals = _PreactivationChainBackward._gradient(ctx)
        needs, count = ctx.needs_input_grad, 3 * len(ctx.spec.norms())
        wanted = needs[2 : 4 + count]
        results = iter(eager.vjp(gradient, primals, wanted, cotangents))
        grads = (next(results) if want else None for want in wanted)
        return (None, None, *grads, *([None] * (len(needs) - 4 - count)))

    @staticmethod
    def jvp(ctx, *tangents):
        gradient, primals = _PreactivationChainBackward._gradient(ctx)
        return eager.jvp(gradient, primals, tangents[2 : 4 + 3 * len(ctx.spec.norms())])


def _unpack_saved(spec: PreChain, saved):
    """→ x, (weight, gamma, beta) of each item, what is kept of each, its affine."""
    count = len(spec.norms())
    x, *rest = saved
    return x, rest[: 3 * count], rest[3 * count : 4 * count], rest[4 * count :]


def _reference(spec: PreChain, affines):
    """The chain for its derivatives, which do not depend on the values of a given shortcut."""
    return lambda x, shortcut, *parameters: eager.preactivation(spec, affines, x, shortcut, *parameters)


class _Gradient(NamedTuple):
    """conv_backward's first arguments: the gradient of a convolution's output, to be formed by a prologue."""

    grad: Tensor
    out: None = None
    raw: Tensor | None = None
    affine: Tensor | None = None
    means: Tensor | None = None
    relu: bool = False


def norm_gradients(kernels, norm: Norm, x: Tensor, affine: Tensor, sums: Tensor | None, parameters, wanted):
    """→ means for bn_backward_apply, dgamma, dbeta, of bn_backward_reduce's sums (None where nothing needs them)."""
    means, gradients = None, (None, None)
    if sums is not None:
        parameters = [p if want else None for p, want in zip(parameters, wanted)]
        means, *gradients = batch_means(kernels, norm, sums, x.shape[0] * x.shape[2] * x.shape[3], *parameters)
    if not norm.batch_stats:
        means = torch.zeros_like(affine[:2])
    return means, *(gradient if want else None for gradient, want in zip(gradients, wanted))


def _backward(spec: PreChain, wanted, dout: Tensor, x: Tensor, items: list[Item]):
    """The gradients that `wanted` names, in the order x, (weight, gamma, beta) per item."""
    kernels = ops.get(spec.backend)
    want_x, *rest = wanted
    want = [rest[3 * i : 3 * i + 3] for i in range(len(items))]
    grads: list = [(None, None, None)] * len(items)
    dx = _units_backward(kernels, spec, want_x, want, dout, x, items, grads)
    flat = (dx, *(grad for gradients in grads for grad in gradients))
    return tuple(grad for grad, want in zip(flat, wanted) if want)


def _units_backward(kernels, spec: PreChain, want_x: bool, want, g: Tensor, x: Tensor, items, grads) -> Tensor | None:
    """From the gradient g of the sum to that of x; fills `grads`."""
    n, first = len(spec.units), spec.units[0]
    reads = (items[0].affine, first.norm is not None)  # of x, by unit 0 and by the projection
    add = g if spec.identity and want_x and first.norm is None else None
    if spec.projection:
        mask = (want_x or any(want[0][1:]), want[n][0])
        add, dw = _conv_backward(kernels, _Gradient(g), x, items[n].weight, spec.projection[0], reads, mask)[:2]
        grads[n] = (dw, None, None)
    gradient = _Gradient(g)
    for i in range(n - 1, -1, -1):
        unit, item, operand = spec.units[i], items[i], items[i - 1].kept if i else x
        want_weight, *want_norm = want[i]
        below = want_x or any(map(any, want[:i]))
        want_norm_any = any(want_norm)
        if not (below or want_norm_any or want_weight):
            break
        scale = spec.scale if i + 1 == n else 1.0
        weight = item.weight if scale == 1 else item.weight * scale
        reduce = unit.norm is not None and (want_norm_any or (below and unit.norm.batch_stats))
        dx, dw, sums = _conv_backward(
            kernels, gradient, operand, weight, unit.conv, (item.affine, unit.norm is not None), (below, want_weight),
            reduce, add if i == 0 else None,
        )  # fmt: skip
        dgamma = dbeta = None
        if unit.norm is None:
            gradient = _Gradient(dx)
        else:
            bn = (item.gamma, item.beta)
            means, dgamma, dbeta = norm_gradients(kernels, unit.norm, operand, item.affine, sums, bn, want_norm)
            gradient = _Gradient(dx, None, operand, item.affine, means, True)
        grads[i] = (dw if scale == 1 or dw is None else dw * scale, dgamma, dbeta)
    if not want_x or first.norm is None:
        return gradient.grad
    dx = kernels.bn_backward_apply(gradient.grad, None, x, gradient.affine, True, gradient.means)
    return dx.add_(g) if spec.identity else dx


def _conv_backward(kernels, gradient, x, weight, conv, reads, mask, reduce=False, add=None):
    """conv_backward → dx, dw, sums, None for what was not asked for."""
    affine, relu = reads
    results = kernels.conv_backward(*gradient, x, weight, *conv, affine, relu, reduce, add, None, mask)
    return tuple(result if want else None for result, want in zip(results, (*mask, reduce)))


def preactivation_chain(spec: PreChain, x: Tensor, parameters, shortcut: Tensor | None = None):
    """Runs the chain → (out, statistics).

    x: [N, C, H, W]; parameters: per unit, projection last, (weight [K, C/groups, R, S], BatchNorm, of None where there
    is none); shortcut: of the output's size and x's dtype where spec.given, else None. `statistics` holds for each item
    [2, C] (of what its batch norm reads, as in residual_chain), or None; they carry no gradient.
    He et al. 2016 (Identity Mappings in Deep Residual Networks), section 4.1 and figure 4.
    """
    flat = [t for weight, bn in parameters for t in (weight, *bn)]
    out, *results = apply(_PreactivationChain, _PreactivationChainJvp, spec, x, shortcut, *flat)
    return out, results[2::3]
