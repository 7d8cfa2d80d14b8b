"""The residual chain: any number of conv-BN-ReLU units and a shortcut as one autograd node.

Training (BN fission; raw_i is convolution i's output, z_i its batch norm):

    raw_1 = conv(x), raw_i = conv(relu(z_{i-1}(raw_{i-1}))), out = relu(z_n(raw_n) + shortcut)

saves x, raw_1 … raw_n, the projection's raw, and where a ReLU follows a sum its mask as bits (`out` itself where they
would not fill bytes); never an activated tensor. The shortcut is x, a projection of it, or a tensor that is given. A
unit whose batch norm is frozen (running statistics) saves its activated output instead: then

    g_i: masked gradient,  D = wgrad(g_i, a_{i-1}):  dw = scale·D,  dγ = invstd·(⟨w, D⟩ − mean·Σg),  dβ = Σg
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, NamedTuple, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import forward_ad

from resnet_fused import ops
from resnet_fused.autograd import eager, handover, synchronize
from resnet_fused.backends import relu_mask


class Conv(NamedTuple):
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


# Not tuples: torch.func takes a Function's tuple arguments apart, but not their tangents.
@dataclass(frozen=True)
class Unit:
    """A convolution, the batch norm behind it, and whether ReLU follows (for the last unit: after the sum)."""

    conv: Conv
    batch_stats: bool  # statistics of the batch; False: running statistics ("frozen")
    eps: float
    relu: bool
    group: dist.ProcessGroup | None = None  # whose batches together have the statistics; None: this process's alone

    def geometry(self) -> tuple[int, ...]:
        """As frozen_chains takes it."""
        conv = self.conv
        return (*conv.stride, *conv.padding, *conv.dilation, conv.groups, self.relu)


@dataclass(frozen=True)
class Chain:
    backend: str
    units: tuple[Unit, ...]
    projection: tuple[Unit, ...]  # one unit or none
    identity: bool
    given: bool = False  # the shortcut is a tensor of its own
    link: handover.Link | None = None  # to the chains around it


class BatchNorm(NamedTuple):
    """A unit's tensors; the running statistics are None where the batch's are used."""

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None


class Operand(NamedTuple):
    """What a convolution reads: x itself, or relu(z(x)) by a prologue."""

    x: Tensor
    prologue: Tensor | None
    relu: bool


class Branch(NamedTuple):
    """One unit with all that the backward pass knows of it."""

    unit: Unit
    weight: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    kept: Tensor | None  # raw output; frozen: the activated one, which is the next unit's operand
    affine: Tensor


def frozen_affine(kernels, bn: BatchNorm, eps: float, acc: torch.dtype) -> Tensor:
    stats = torch.stack((bn.running_mean.to(acc), bn.running_var.to(acc)))
    return kernels.bn_finalize(stats, 1, bn.weight, bn.bias, eps)


def output_size(x_size, weight: Tensor, conv: Conv) -> tuple[int, int]:
    """P, Q of a convolution's output, from its input's size (a Function's output has no size under dynamo)."""
    _, _, H, W = x_size
    _, _, R, S = weight.shape
    stride, padding, dilation = conv.stride, conv.padding, conv.dilation
    return (ops.output_extent(H, R, stride[0], padding[0], dilation[0]),
            ops.output_extent(W, S, stride[1], padding[1], dilation[1]))  # fmt: skip


def batch_affine(kernels, unit, raw: Tensor, stats: Tensor, bn: BatchNorm) -> tuple[Tensor, Tensor]:
    """The affine of the batch's statistics, and these, as residual_chain returns them; unit: what has eps and group."""
    count = raw.shape[0] * raw.shape[2] * raw.shape[3]
    if unit.group is None:
        return kernels.bn_finalize(stats, count, bn.weight, bn.bias, unit.eps), stats
    together = synchronize.merge_statistics(stats, count, unit.group)
    return kernels.bn_finalize(together.biased, 1, bn.weight, bn.bias, unit.eps), together.unbiased


def conv_bn(kernels, unit, operand, weight, bn, acc, epilogue=(None, None, False)):
    """fprop of one unit → (raw, affine, stats); frozen with an epilogue (residual, its affine, relu): (out, …)."""
    arguments = (operand.x, weight, *unit.conv, operand.prologue, operand.relu)
    if unit.batch_stats:
        raw, stats = kernels.conv_fprop(*arguments, True, None, None, None, False)
        return raw, *batch_affine(kernels, unit, raw, stats, bn)
    affine = frozen_affine(kernels, bn, unit.eps, acc)
    out, _ = kernels.conv_fprop(*arguments, False, affine, *epilogue)
    return out, affine, None


def _split(spec: Chain, tensors) -> list[tuple[Tensor, BatchNorm]]:
    return [(tensors[i], BatchNorm(*tensors[i + 1 : i + 5])) for i in range(0, len(tensors), 5)]


def _forward(spec: Chain, x: Tensor, shortcut: Tensor | None, tensors):
    """→ out, its ReLU's mask, and per unit (projection last) what is kept, its affine, its statistics."""
    kernels = ops.get(spec.backend)
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32
    parameters = _split(spec, tensors)
    residual, residual_affine, projection = (x if spec.identity else shortcut), None, ()
    if spec.projection:
        unit = spec.projection[0]
        residual, affine, stats = conv_bn(kernels, unit, Operand(x, None, False), *parameters[-1], acc)
        residual_affine = affine if unit.batch_stats else None
        projection = ((residual if unit.batch_stats else None, affine, stats),)
    operand, results = Operand(x, None, False), []
    for i, (unit, (weight, bn)) in enumerate(zip(spec.units, parameters)):
        last = i + 1 == len(spec.units)
        epilogue = (residual, residual_affine, unit.relu) if last else (None, None, unit.relu)
        y, affine, stats = conv_bn(kernels, unit, operand, weight, bn, acc, epilogue)
        kept = y if unit.batch_stats or not last else None
        results.append((kept, affine, stats))
        operand = Operand(y, affine, unit.relu) if unit.batch_stats else Operand(y, None, False)
    mask = None
    if spec.units[-1].batch_stats:
        if _sum_masks(spec):
            y, mask = kernels.bn_apply_mask(y, affine, residual, residual_affine)
        else:
            y = kernels.bn_apply(y, affine, spec.units[-1].relu, residual, residual_affine)
    return y, mask, (*results, *projection)


def _sum_masks(spec: Chain) -> bool:
    """Whether the last ReLU's mask cannot be had from raw_n, because something is added to it or it is not kept."""
    last = spec.units[-1]
    return last.relu and bool(spec.projection or spec.identity or spec.given or not last.batch_stats)


class _ResidualChain(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(spec, x, shortcut, *tensors):
        out, mask, results = _forward(spec, x, shortcut, tensors)
        return (out, mask, *(t for result in results for t in result))

    @staticmethod
    def setup_context(ctx, inputs, output):
        spec, x, _, *tensors = inputs
        out, mask, *results = output
        ctx.spec = spec
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(t for t in (mask, *results) if t is not None))
        parameters = [tensors[i + j] for i in range(0, len(tensors), 5) for j in range(3)]
        kept_and_affine = [results[i + j] for i in range(0, len(results), 3) for j in range(2)]
        out = out if _sum_masks(spec) and (mask is None or mask.dim() == 1) else None
        norms = () if spec.link is None else spec.link.norms
        if spec.link is not None:  # tensors are kept by being saved
            ctx.spec = replace(spec, link=spec.link._replace(norms=()))
        ctx.norms = len(norms)
        ctx.save_for_backward(x, out, mask, *parameters, *kept_and_affine, *norms)
        ctx.save_for_forward(x, out, mask, *parameters, *results[1::3])

    @staticmethod
    def backward(ctx, dout, *_):
        spec, needs = ctx.spec, ctx.needs_input_grad
        blanks = [None] * len(needs)
        if dout is None:
            return tuple(blanks)
        # positions of x, the shortcut and every weight, gamma and beta among the inputs (spec, x, shortcut, 5 per unit)
        positions = [1, 2, *(i + j for i in range(3, len(needs), 5) for j in range(3))]
        if needs[2] and not spec.units[-1].relu:
            blanks[2] = dout  # itself, which no Function of it could return
        wanted = tuple(needs[i] and not (i == 2 and blanks[2] is dout) for i in positions)
        if any(wanted):
            saved = ctx.saved_tensors
            saved, norms = saved[: len(saved) - ctx.norms], saved[len(saved) - ctx.norms :]
            if spec.link is not None and unobserved((dout, *saved)):
                x, out, mask, *branches = saved
                link = spec.link._replace(norms=norms)
                grads = _backward(spec, wanted, dout, x, out, mask, _branches(spec, branches), link)
            else:
                grads = apply_backward(_ResidualChainBackward, spec, pack(wanted), dout, *saved)
            for i, grad in zip((i for i, want in zip(positions, wanted) if want), grads):
                blanks[i] = grad
        return tuple(blanks)


def pack(mask) -> int:
    """The booleans as bits of a number, which is one argument of a Function for torch.func and for Dynamo."""
    return sum(1 << i for i, bit in enumerate(mask) if bit)


def unpack(bits: int, count: int) -> tuple[bool, ...]:
    return tuple(bool(bits >> i & 1) for i in range(count))


def _count(spec: Chain) -> int:
    return len(spec.units) + len(spec.projection)


def tracked(inputs) -> bool:
    return torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in inputs)


def unobserved(inputs) -> bool:
    """Nobody differentiates, transforms or compiles what becomes of the inputs."""
    return not (
        tracked(inputs)
        or torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def apply(function, dual, *inputs):
    """`dual`, which adds a jvp to `function`; Dynamo traces none that has one. Without a graph, its forward alone."""
    if torch.compiler.is_compiling():
        return (function.apply if tracked(inputs) else function.forward)(*inputs)
    if unobserved(inputs):
        return function.forward(*inputs)
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return dual.apply(*inputs)
    # What Function.apply does then, but for binding default arguments, of which there are none, by `inspect`.
    return super(torch.autograd.Function, dual).apply(*unwrap_dead_wrappers(inputs))


def apply_backward(function, *inputs):
    """`function`, a backward pass with derivatives of its own, as part of another's; its forward alone where nobody
    differentiates it, and for Dynamo, which traces no Function within a Function."""
    alone = torch.compiler.is_compiling() or unobserved(inputs)
    return (function.forward if alone else function.apply)(*inputs)


class _ResidualChainJvp(_ResidualChain):
    @staticmethod
    def jvp(ctx, _, *tangents):
        saved = eager.alive(ctx.saved_tensors)
        x, out, mask, *saved = saved
        count = 3 * _count(ctx.spec)
        parameters, affines = saved[:count], saved[count:]
        tangents = (*tangents[:2], *(tangents[i + j] for i in range(2, len(tangents), 5) for j in range(3)))
        primals = (x, None if tangents[1] is None else torch.zeros_like(tangents[1]), *parameters)
        function = _reference(ctx.spec, affines, out, mask)
        return (eager.jvp(function, primals, tangents), None, *([None] * len(affines) * 3))


def _reference(spec, affines, out, mask):
    """The chain for its derivatives, in which a given shortcut's values are no more than the mask."""

    def passes(y):
        return relu_mask.unpack(mask, y.shape) if out is None else ~(out <= 0)

    return lambda x, shortcut, *parameters: eager.chain(spec, affines, passes, x, shortcut, *parameters)


class _ResidualChainBackward(torch.autograd.Function):
    """The fused backward; its own derivatives are those of the reference's backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(spec, wanted, dout, x, out, mask, *saved):
        return _backward(spec, unpack(wanted, 2 + 3 * _count(spec)), dout, x, out, mask, _branches(spec, saved))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.spec, wanted, dout, x, out, mask, *saved = inputs
        count = 3 * _count(ctx.spec)
        ctx.wanted = unpack(wanted, 2 + count)
        kept = (dout, x, out, mask, *saved[:count], *saved[count + 1 :: 2])
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)
        ctx.count = count

    @staticmethod
    def _gradient(ctx):
        """The reference's backward as a function of (dout, x, shortcut, *parameters), and their values."""
        dout, x, out, mask, *saved = eager.alive(ctx.saved_tensors)
        parameters, affines = saved[: ctx.count], saved[ctx.count :]
        shortcut = dout.new_zeros(()).expand_as(dout) if ctx.spec.given else None
        primals = (dout, x, shortcut, *parameters)
        function = _reference(ctx.spec, affines, out, mask)

        def gradient(dout, *inputs):
            return eager.vjp(function, inputs, ctx.wanted, dout)

        return gradient, primals

    @staticmethod
    def backward(ctx, *cotangents):
        gradient, primals = _ResidualChainBackward._gradient(ctx)
        needs = ctx.needs_input_grad
        wanted = (*needs[2:4], False, *needs[6 : 6 + ctx.count])
        results = iter(eager.vjp(gradient, primals, wanted, cotangents))
        grads = [next(results) if want else None for want in wanted]
        return (None, None, *grads[:3], None, *grads[3:], *([None] * (len(needs) - 6 - ctx.count)))

    @staticmethod
    def jvp(ctx, *tangents):
        gradient, primals = _ResidualChainBackward._gradient(ctx)
        tangents = (*tangents[2:4], None, *tangents[6 : 6 + ctx.count])
        return eager.jvp(gradient, primals, tangents)


def _branches(spec: Chain, saved) -> list[Branch]:
    units = (*spec.units, *spec.projection)
    kept = saved[3 * len(units) :]
    return [Branch(u, *saved[3 * i : 3 * i + 3], *kept[2 * i : 2 * i + 2]) for i, u in enumerate(units)]


class Incoming(NamedTuple):
    """The gradient of a unit's output, before its ReLU's mask, with what that unit's batch norm needs of it."""

    grad: Tensor
    out: Tensor | None  # masks where given
    sums: Tensor | None  # Σg, Σg·x̂ (frozen: Σg alone, if wanted)
    relu: bool


def gradient_of(parameter: Tensor, total: Tensor) -> Tensor:
    """In the parameter's dtype, on memory of its own: a row of `sums` would be a view, shared with the other row."""
    return total.to(parameter.dtype, copy=True)


def batch_means(kernels, unit, sums: Tensor, count: int, gamma: Tensor | None, beta: Tensor | None):
    """→ the means of `sums` over the batch, dgamma, dbeta (this process's own); count: this process's values, unit:
    what has a group."""
    means, dgamma, dbeta = kernels.bn_backward_finalize(sums, count, gamma, beta)
    if unit.group is not None:
        means = synchronize.mean_sums(sums, count, unit.group)
    return means, dgamma, dbeta


def unit_backward(kernels, branch, operand, incoming, wanted, reduce=False, add=(None, None), norms=()):
    """dgrad and wgrad of one unit → dx, (dweight, dgamma, dbeta), sums; `wanted` masks (x, weight, gamma, beta).

    norms: of the sum whose ReLU the operand is; then dx is masked by it.
    """
    unit, weight, affine = branch.unit, branch.weight, branch.affine
    want_dx, want_weight, want_gamma, want_beta = wanted
    grad, out, sums, relu = incoming
    if unit.batch_stats:
        P, Q = output_size(operand.x.shape, weight, unit.conv)
        parameters = (branch.gamma if want_gamma else None, branch.beta if want_beta else None)
        means, dgamma, dbeta = batch_means(kernels, unit, sums, grad.shape[0] * P * Q, *parameters)
        gradient = (grad, out, branch.kept, affine, means, relu)
    else:
        gradient = (grad, out, None, None, None, relu)
        # In its own type: rounded to 16 bits, it would be wrong by the same part in all of a channel.
        scale = affine[1].view(-1, 1, 1, 1)
        weight = (weight * scale).to(weight.dtype)
    output_mask = (want_dx, want_weight or (want_gamma and not unit.batch_stats))
    dx, dw, next_sums = kernels.conv_backward(
        *gradient, operand.x, weight, *unit.conv, operand.prologue, operand.relu, reduce, *add, output_mask, *norms
    )
    if not unit.batch_stats:
        dbeta = gradient_of(branch.beta, sums[0]) if want_beta else None
        if want_gamma:
            inner = (branch.weight.to(sums.dtype) * dw.to(sums.dtype)).sum((1, 2, 3))
            dgamma = gradient_of(branch.gamma, affine[3] * (inner - affine[0] * sums[0]))
        if want_weight:
            dw = (dw * scale).to(dw.dtype)
    gradients = (dw if want_weight else None, dgamma if want_gamma else None, dbeta if want_beta else None)
    return dx, gradients, next_sums


def _last_incoming(kernels, main, projection, dout, out, mask, wanted, handed) -> tuple[Incoming, Incoming]:
    """The gradient g of the sum, for the last unit and for the projection: with Σg and Σg·x̂ of both in one pass.

    Where the sum masks, that pass also stores g, which is read up to five times afterwards, each time without a mask.
    handed: the sums, where dout is masked already.
    """
    relu = main.unit.relu
    sources = [b for b in (main, *projection) if b.unit.batch_stats]
    frozen_wants_beta = any(w[1] or w[2] for b, w in zip((main, *projection), wanted) if not b.unit.batch_stats)
    if not sources and not frozen_wants_beta:
        return Incoming(dout, out, None, relu), Incoming(dout, out, None, relu)
    pairs = [t for b in sources for t in (b.kept, b.affine)]
    g = dout
    if handed is not None:
        sums, out, relu = handed, None, False
    elif sources and relu and (out is not None or mask is not None):
        if out is None and not relu_mask.fits(mask, sources[0].kept):
            # A hook on saved tensors may have changed their memory format; the order of the bits it cannot.
            out = relu_mask.unpack(mask, dout.shape).to(dout.dtype)
        g, sums = kernels.bn_backward_mask_reduce(dout, out, *pairs, mask=mask)
        out, relu = None, False
    else:
        sums = kernels.bn_backward_reduce(dout, out, *(pairs[:2] or (None, None)), relu, *pairs[2:])
    both = len(sources) == 2
    return (
        Incoming(g, out, sums[:2] if both else sums, relu),
        Incoming(g, out, torch.stack((sums[0], sums[2])) if both else sums, relu),
    )


def _backward(spec: Chain, wanted, dout, x, out, mask, branches: list[Branch], link: handover.Link | None = None):
    """The chain's gradients that `wanted` names, in the order x, shortcut, (weight, gamma, beta) per unit, projection
    last."""
    kernels = ops.get(spec.backend)
    n = len(spec.units)
    want_x, want_shortcut, *rest = wanted
    want = [rest[3 * i : 3 * i + 3] for i in range(len(branches))]
    main, projection = branches[:n], branches[n:]
    handed = None if link is None else link.received.take(dout)
    norms = link.norms if link is not None and want_x else ()
    wanted_last = [want[n - 1], *want[n:]]
    incoming, shortcut = _last_incoming(kernels, main[-1], projection, dout, out, mask, wanted_last, handed)
    grads: list = [None] * len(branches)
    add = (shortcut.grad, shortcut.out) if spec.identity else (None, None)
    if projection:
        add_x, grads[n], _ = unit_backward(
            kernels, projection[0], Operand(x, None, False), shortcut, (want_x, *want[n])
        )
        add = (add_x, None)
    # A unit's dx is wanted while anything before it is.
    first = 0 if want_x else next((i for i in range(n) if any(want[i])), n)
    for i in range(n - 1, -1, -1):
        if i < first:
            break
        want_dx = want_x if i == 0 else i > first
        operand, reduce = _operand(x, main, i), i > 0 and want_dx and main[i - 1].unit.batch_stats
        dx, grads[i], sums = unit_backward(
            kernels, main[i], operand, incoming, (want_dx, *want[i]), reduce,
            add if i == 0 and want_x else (None, None), norms if i == 0 else (),
        )  # fmt: skip
        if i == 0 and norms:
            link.onward.put(dx, sums)
        if i > 0 and want_dx:
            incoming = _incoming(kernels, main[i - 1], dx, sums, want[i - 1])
    given = _masked(shortcut) if want_shortcut else None
    flat = (dx if want_x else None, given, *(g for gradients in grads for g in (gradients or (None,) * 3)))
    return tuple(g for g, w in zip(flat, wanted) if w)


def _masked(incoming: Incoming) -> Tensor:
    """The gradient behind the mask."""
    grad, out, _, relu = incoming
    return grad.masked_fill(out <= 0, 0) if relu and out is not None else grad


def _operand(x, main, i) -> Operand:
    if i == 0:
        return Operand(x, None, False)
    previous = main[i - 1]
    if previous.unit.batch_stats:
        return Operand(previous.kept, previous.affine, previous.unit.relu)
    return Operand(previous.kept, None, False)


def _incoming(kernels, branch, dx, sums, want) -> Incoming:
    """What conv_backward of the next unit leaves for this one."""
    unit = branch.unit
    if unit.batch_stats:
        return Incoming(dx, None, sums, unit.relu)
    out = branch.kept if unit.relu else None
    if want[1] or want[2]:
        return Incoming(dx, out, kernels.bn_backward_reduce(dx, out, None, None, unit.relu), unit.relu)
    return Incoming(dx, out, None, unit.relu)


def frozen_chains(specs: Sequence[Chain]) -> Callable[[Tensor, list[Tensor], list[Tensor | None]], Tensor]:
    """As residual_chain of one after another, of frozen units alone on one backend, whom nobody observes.

    → a function of x and what frozen_tensors gives for all their parameters.
    """
    units = [unit for spec in specs for unit in (*spec.units, *spec.projection)]
    geometry, eps = [n for unit in units for n in unit.geometry()], [unit.eps for unit in units]
    chains = [int(n) for spec in specs for n in (len(spec.units), bool(spec.projection), spec.identity)]
    (backend,) = {spec.backend for spec in specs}

    def run(x: Tensor, weights: list[Tensor], norms: list[Tensor | None]) -> Tensor:
        return ops.get(backend).frozen_chains(x, weights, norms, eps, geometry, chains)

    return run


def frozen_tensors(parameters) -> tuple[list[Tensor], list[Tensor | None]]:
    """The weights; and of each batch norm weight, bias, running mean and variance."""
    return [weight for weight, _ in parameters], [t for _, bn in parameters for t in bn]


def residual_chain(spec: Chain, x: Tensor, parameters, shortcut: Tensor | None = None):
    """Runs the chain → (out, statistics).

    x: [N, C, H, W]; parameters: per unit, projection last, (weight [K, C/groups, R, S], BatchNorm); shortcut: of the
    output's size and x's dtype where spec.given, else None. `statistics` holds for each unit [2, K] (batch mean and sum
    of squared deviations; of a unit with a group mean and unbiased variance, of all its batches), or None where it is
    frozen; they carry no gradient. He et al. 2016 (Deep Residual Learning), section 3.2 and figure 5.
    """
    flat = [t for weight, bn in parameters for t in (weight, *bn)]
    units, last = (*spec.units, *spec.projection), len(spec.units) - 1
    if not any(unit.batch_stats for unit in units) and not spec.given and unobserved((x, *flat)):
        return frozen_chains([spec])(x, *frozen_tensors(parameters)), [None] * len(units)
    link = handover.link(spec.backend, x, not spec.given)
    spec = spec if link is None else replace(spec, link=link)
    out, _, *results = apply(_ResidualChain, _ResidualChainJvp, spec, x, shortcut, *flat)
    if link is not None and _sum_masks(spec) and all(unit.batch_stats for unit in units[last:]):
        norms = tuple(t for i in range(last, len(units)) for t in results[3 * i : 3 * i + 2])
        handover.leave(handover.Tail(out, norms, link.received))
    return out, results[2::3]
