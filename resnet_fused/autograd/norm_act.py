"""Batch norm and ReLU of a tensor as one autograd node: out = relu(z(x)).

Saves x and vectors of a channel: the mask is that of z(x), which the backward passes form again as they read x.
"""

from __future__ import annotations

import torch
from torch import Tensor

from resnet_fused import ops
from resnet_fused.autograd import eager
from resnet_fused.autograd.chain import BatchNorm, apply, apply_backward, pack, unpack
from resnet_fused.autograd.preactivation import Norm, norm_affine, norm_gradients


class _NormAct(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(backend, norm, x, *bn):
        kernels = ops.get(backend)
        stats = kernels.bn_statistics(x) if norm.batch_stats else None
        affine, stats = norm_affine(kernels, norm, x, stats, BatchNorm(*bn))
        return kernels.bn_apply(x, affine, True), affine, stats

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.backend, ctx.norm, x, gamma, beta, _, _ = inputs
        _, affine, stats = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(t for t in (affine, stats) if t is not None))
        ctx.save_for_backward(x, gamma, beta, affine)
        ctx.save_for_forward(x, gamma, beta, affine)

    @staticmethod
    def backward(ctx, dout, *_):
        if dout is None:
            return (None,) * 7
        wanted = tuple(ctx.needs_input_grad[2:5])
        grads = iter(apply_backward(_NormActBackward, ctx.backend, ctx.norm, pack(wanted), dout, *ctx.saved_tensors))
        return (None, None, *(next(grads) if want else None for want in wanted), None, None)


class _NormActJvp(_NormAct):
    @staticmethod
    def jvp(ctx, *tangents):
        *primals, affine = eager.alive(ctx.saved_tensors)
        return eager.jvp(_reference(ctx.norm, affine), primals, tangents[2:5]), None, None


def _reference(norm: Norm, affine: Tensor):
    return lambda x, gamma, beta: eager.norm_act(norm, affine, x, gamma, beta)


class _NormActBackward(torch.autograd.Function):
    """The fused backward; its own derivatives are those of the reference's backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(backend, norm, wanted, dout, x, gamma, beta, affine):
        kernels, wanted = ops.get(backend), unpack(wanted, 3)
        sums = None
        if norm.batch_stats or wanted[1] or wanted[2]:
            sums = kernels.bn_backward_reduce(dout, None, x, affine, True)
        means, *gradients = norm_gradients(kernels, norm, x, affine, sums, (gamma, beta), wanted[1:])
        dx = kernels.bn_backward_apply(dout, None, x, affine, True, means) if wanted[0] else None
        return tuple(g for g, want in zip((dx, *gradients), wanted) if want)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.norm, wanted, dout, x, gamma, beta, affine = inputs
        ctx.wanted = unpack(wanted, 3)
        ctx.save_for_backward(dout, x, gamma, beta, affine)
        ctx.save_for_forward(dout, x, gamma, beta, affine)

    @staticmethod
    def _gradient(ctx):
        *primals, affine = eager.alive(ctx.saved_tensors)
        function = _reference(ctx.norm, affine)

        def gradient(dout, *inputs):
            return eager.vjp(function, inputs, ctx.wanted, dout)

        return gradient, primals

    @staticmethod
    def backward(ctx, *cotangents):
        gradient, primals = _NormActBackward._gradient(ctx)
        wanted = ctx.needs_input_grad[3:7]
        results = iter(eager.vjp(gradient, primals, wanted, cotangents))
        return (None, None, None, *(next(results) if want else None for want in wanted), None)

    @staticmethod
    def jvp(ctx, *tangents):
        gradient, primals = _NormActBackward._gradient(ctx)
        return eager.jvp(gradient, primals, tangents[3:7])


def norm_act(backend: str, norm: Norm, x: Tensor, bn: BatchNorm):
    """relu(bn(x)) → (out, statistics): [2, C] as residual_chain's, None where it is frozen.

    x: [N, C, H, W] → the same size. Ioffe & Szegedy 2015 (Batch Normalization), algorithm 1.
    """
    out, _, stats = apply(_NormAct, _NormActJvp, backend, norm, x, *bn)
    return out, stats
