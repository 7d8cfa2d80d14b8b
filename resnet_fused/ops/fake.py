"""Fake (meta) kernels: shape, dtype and memory format of every operator's results."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from resnet_fused.backends import relu_mask


def _acc(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _empty_acc(x: Tensor, *size) -> Tensor:
    return x.new_empty(size, dtype=_acc(x))


def _empty_format(x: Tensor, size, memory_format, dtype=None) -> Tensor:
    return torch.empty(size, dtype=dtype or x.dtype, device=x.device, memory_format=memory_format)


def _empty_like(x: Tensor) -> Tensor:
    return _empty_format(x, x.shape, suggest_memory_format(x))


def output_extent(size, kernel, stride, padding, dilation):
    """Pixels of a convolution's output along one axis."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _conv_format(x: Tensor, weight: Tensor) -> torch.memory_format:
    last = torch.channels_last in (suggest_memory_format(x), suggest_memory_format(weight))
    return torch.channels_last if last else torch.contiguous_format


def bn_statistics(x):
    return _empty_acc(x, 2, x.shape[1])


def bn_finalize(stats, count, weight, bias, eps):
    return stats.new_empty(4, stats.shape[1])


def bn_apply(x, affine, relu, residual=None, residual_affine=None):
    return _empty_like(x)


def bn_apply_mask(x, affine, residual, residual_affine=None):
    y = _empty_like(x)
    return y, relu_mask.empty(y)


def _bn_apply_mask_compiled(x, affine, residual, residual_affine=None):
    """Of our CPU kernels there is no mask."""
    y, mask = bn_apply_mask(x, affine, residual, residual_affine)
    return y, (mask.new_empty(0) if y.device.type == "cpu" else mask)


def bn_backward_reduce(grad, out, x, affine, relu, x2=None, affine2=None):
    return _empty_acc(grad, 1 + (x is not None) + (x2 is not None), grad.shape[1])


def bn_backward_mask_reduce(grad, out, x, affine, x2=None, affine2=None, mask=None):
    g = _empty_format(grad, grad.shape, suggest_memory_format(x))
    return g, bn_backward_reduce(grad, out, x, affine, True, x2, affine2)


def bn_backward_apply(grad, out, x, affine, relu, means):
    return _empty_like(x)


def bn_backward_finalize(sums, count, weight, bias):
    return torch.empty_like(sums), *(sums.new_empty(0) if p is None else torch.empty_like(p) for p in (weight, bias))


def bn_update_running(stats, counts, momenta, running_mean, running_var, counters):
    return None


def conv_fprop(
    x, weight, stride, padding, dilation, groups,
    prologue, prologue_relu, statistics, epilogue, residual, residual_affine, relu,
):  # fmt: skip
    K, _, R, S = weight.shape
    P = output_extent(x.shape[2], R, stride[0], padding[0], dilation[0])
    Q = output_extent(x.shape[3], S, stride[1], padding[1], dilation[1])
    y = _empty_format(x, (x.shape[0], K, P, Q), _conv_format(x, weight))
    return y, (_empty_acc(x, 2, K) if statistics else _empty_acc(x, 0))


def conv_backward(
    grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation, groups,
    prologue, prologue_relu, reduce, add, add_out, output_mask,
    sum_raw=None, sum_affine=None, sum_raw2=None, sum_affine2=None,
):  # fmt: skip
    dx = _empty_format(x, x.shape, _conv_format(x, weight)) if output_mask[0] else x.new_empty(0)
    dw = _empty_like(weight) if output_mask[1] else x.new_empty(0)
    sums = (2 + (sum_raw2 is not None), x.shape[1]) if reduce or sum_raw is not None else (0,)
    return dx, dw, _empty_acc(x, *sums)


def conv_dgrad(*arguments):
    dx, _, sums = conv_backward(*arguments, (True, False))
    return dx, sums


def conv_wgrad(*arguments):
    return conv_backward(*arguments, False, None, None, (False, True))[1]


def frozen_chains(x, weights, norms, eps, geometry, chains):
    first = 0
    for length, projection in zip(chains[::3], chains[1::3]):
        for i in range(first, first + length):
            g = geometry[8 * i : 8 * i + 8]
            x, _ = conv_fprop(x, weights[i], g[:2], g[2:4], g[4:6], g[6], None, False, False, None, None, None, False)
        first += length + projection
    return x


def stem_pool(x, affine):
    size = (*x.shape[:2], output_extent(x.shape[2], 3, 2, 1, 1), output_extent(x.shape[3], 3, 2, 1, 1))
    memory_format = suggest_memory_format(x)
    return _empty_format(x, size, memory_format), _empty_format(x, size, memory_format, torch.uint8)


def stem_pool_backward_reduce(grad, index, x, affine):
    return _empty_acc(grad, 1 + (x is not None), grad.shape[1])


def stem_pool_backward_apply(grad, index, input_size, x, affine, means):
    return _empty_format(grad, tuple(input_size), suggest_memory_format(index))


OPERATORS = (
    bn_statistics,
    bn_finalize,
    bn_apply,
    bn_apply_mask,
    bn_backward_reduce,
    bn_backward_mask_reduce,
    bn_backward_apply,
    bn_backward_finalize,
    bn_update_running,
    conv_fprop,
    conv_backward,
    conv_dgrad,
    conv_wgrad,
    frozen_chains,
    stem_pool,
    stem_pool_backward_reduce,
    stem_pool_backward_apply,
)


def register(namespace: str, compiled: bool = False) -> None:
    """For the operators that are registered as torch.ops.<namespace>; compiled: those of csrc, with a CPU's kernels."""
    operators = {operator.__name__: operator for operator in OPERATORS}
    if compiled:
        operators["bn_apply_mask"] = _bn_apply_mask_compiled
    for name, operator in operators.items():
        torch.library.register_fake(f"{namespace}::{name}", operator)
