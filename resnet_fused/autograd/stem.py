"""The stem: convolution, batch norm, ReLU and max pool 3×3/2 as one autograd node.

    out, index = pool(relu(z(raw))), raw = conv(x)

saves x, one byte per pooled pixel and, in training, raw; neither the normalised nor the activated tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from resnet_fused import ops
from resnet_fused.autograd import eager
from resnet_fused.autograd.chain import (
    BatchNorm,
    Branch,
    Incoming,
    Operand,
    Unit,
    apply,
    apply_backward,
    batch_affine,
    batch_means,
    frozen_affine,
    output_size,
    pack,
    unit_backward,
    unpack,
)


class _Stem(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(backend, unit, x, weight, *bn):
        kernels, bn = ops.get(backend), BatchNorm(*bn)
        raw, stats = kernels.conv_fprop(
            x, weight, *unit.conv, None, False, unit.batch_stats, None, None, None, False
        )
        if unit.batch_stats:
            affine, stats = batch_affine(kernels, unit, raw, stats, bn)
        else:
            raw_acc = torch.float64 if raw.dtype == torch.float64 else torch.float32
            affine = frozen_affine(kernels, bn, unit.eps, raw_acc)
        out, index = kernels.stem_pool(raw, affine)
        if unit.batch_stats:
            return out, index, affine, raw, stats
        return out, index, affine, None, None

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.backend, ctx.unit, x, weight, gamma, beta, _, _ = inputs
        _, index, affine, raw, stats = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(t for t in (index, affine, raw, stats) if t is not None))
        ctx.save_for_backward(x, weight, gamma, beta, affine, index, raw)
        ctx.save_for_forward(x, weight, gamma, beta, affine)

    @staticmethod
    def backward(ctx, dout, *_):
        needs = ctx.needs_input_grad
        if dout is None:
            return (None,) * len(needs)
        wanted = tuple(needs[2:6])
        grads = iter(apply_backward(_StemBackward, ctx.backend, ctx.unit, pack(wanted), dout, *ctx.saved_tensors))
        return (None, None, *(next(grads) if want else None for want in wanted), None, None)


class _StemJvp(_Stem):
    @staticmethod
    def jvp(ctx, *tangents):
        *primals, affine = eager.alive(ctx.saved_tensors[:5])
        out = eager.jvp(_reference(ctx.unit, affine), primals, tangents[2:6])
        return out, None, None, None, None


def _reference(unit, affine):
    return lambda x, weight, gamma, beta: eager.stem(unit, affine, x, weight, gamma, beta)


class _StemBackward(torch.autograd.Function):
    """The fused backward; its own derivatives are those of the reference's backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(backend, unit, wanted, dout, x, weight, gamma, beta, affine, index, raw):
        kernels, wanted = ops.get(backend), unpack(wanted, 4)
        sums = None
        if unit.batch_stats or wanted[2] or wanted[3]:
            sums = kernels.stem_pool_backward_reduce(dout, index, raw, affine if unit.batch_stats else None)
        P, Q = output_size(x.shape, weight, unit.conv)
        size = (x.shape[0], weight.shape[0], P, Q)
        bn = (None, None, None)
        if unit.batch_stats:
            means, dgamma, dbeta = batch_means(kernels, unit, sums, x.shape[0] * P * Q, gamma, beta)
            bn = (raw, affine, means)
        grad = kernels.stem_pool_backward_apply(dout, index, size, *bn)
        if unit.batch_stats:
            dx, dw, _ = kernels.conv_backward(
                grad, None, None, None, None, False, x, weight, *unit.conv,
                None, False, False, None, None, wanted[:2],
            )  # fmt: skip
            gradients = (dw, dgamma, dbeta)
        else:
            branch = Branch(unit, weight, gamma, beta, None, affine)
            incoming = Incoming(grad, None, sums, False)
            dx, gradients, _ = unit_backward(kernels, branch, Operand(x, None, False), incoming, wanted)
        return tuple(g for g, want in zip((dx, *gradients), wanted) if want)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.unit, wanted, dout, x, weight, gamma, beta, affine, _, _ = inputs
        ctx.wanted = unpack(wanted, 4)
        ctx.save_for_backward(dout, x, weight, gamma, beta, affine)
        ctx.save_for_forward(dout, x, weight, gamma, beta, affine)

    @staticmethod
    def _gradient(ctx):
        *primals, affine = eager.alive(ctx.saved_tensors)
        function = _reference(ctx.unit, affine)

        def gradient(dout, *inputs):
            return eager.vjp(function, inputs, ctx.wanted, dout)

        return gradient, primals

    @staticmethod
    def backward(ctx, *cotangents):
        gradient, primals = _StemBackward._gradient(ctx)
        wanted = ctx.needs_input_grad[3:8]
        results = iter(eager.vjp(gradient, primals, wanted, cotangents))
        return (None,) * 3 + tuple(next(results) if want else None for want in wanted) + (None,) * 3

    @staticmethod
    def jvp(ctx, *tangents):
        gradient, primals = _StemBackward._gradient(ctx)
        return eager.jvp(gradient, primals, tangents[3:8])


def stem(backend: str, unit: Unit, x: Tensor, weight: Tensor, bn: BatchNorm):
    """maxpool3×3/2(relu(bn(conv(x)))) → (out, statistics), as residual_chain gives them; `unit.relu` is True."""
    out, _, _, _, stats = apply(_Stem, _StemJvp, backend, unit, x, weight, *bn)
    return out, stats
