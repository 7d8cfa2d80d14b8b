"""Convolutions by PyTorch's library (cuDNN), for what Triton's do not take; what surrounds them by our kernels, with as
few passes over memory as that allows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from resnet_fused.backends.triton import dense
from resnet_fused.backends.triton.bn_apply import add_masked, bn_apply, bn_apply_into
from resnet_fused.backends.triton.bn_backward import (
    bn_backward_apply_into,
    bn_backward_mask_reduce,
    bn_backward_reduce,
)
from resnet_fused.backends.triton.bn_statistics import bn_statistics


def _format(x, weight):
    last = torch.channels_last in (dense.format_of(x), dense.format_of(weight))
    return torch.channels_last if last else torch.contiguous_format


def _operand(x, prologue, relu):
    return x if prologue is None else bn_apply(x, prologue, relu)


def _draw(grad, out, raw, affine, means, relu, memory_format):
    """The gradient of the convolution's output, formed once for dgrad and wgrad."""
    if raw is not None:
        return bn_backward_apply_into(dense.empty(raw, memory_format), grad, out, raw, affine, relu, means)
    return add_masked(None, grad, out) if relu else grad


def conv_fprop(
    x, weight, stride, padding, dilation, groups,
    prologue, prologue_relu, statistics, epilogue, residual, residual_affine, relu,
):  # fmt: skip
    """y = conv([relu] z(x; prologue), weight), then its stats [2, K], or bn_apply by the epilogue."""
    y = F.conv2d(_operand(x, prologue, prologue_relu), weight, None, stride, padding, dilation, groups)
    y = dense.dense(y, _format(x, weight))
    stats = bn_statistics(y) if statistics else dense.empty_acc(x, 0)
    if epilogue is not None:
        bn_apply_into(y, y, epilogue, relu, residual, residual_affine)
    return y, stats


def _convolution_backward(draw, operand, weight, conv, dx, dw):
    stride, padding, dilation, groups = conv
    return torch.ops.aten.convolution_backward(
        draw, operand, weight, None, stride, padding, dilation, False, [0, 0], groups, [dx, dw, False]
    )[:2]


def conv_backward(
    grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation, groups,
    prologue, prologue_relu, reduce, add, add_out, output_mask,
    sum_raw=None, sum_affine=None, sum_raw2=None, sum_affine2=None,
):  # fmt: skip
    """With draw = bn_backward_apply(grad, out, raw, …), or the masked grad: dx = dgrad(draw, weight) + masked add,
    dw = wgrad(draw, operand), sums = bn_backward_reduce(dx, x; prologue); with sum_raw of ops.conv_backward."""
    conv, want_dw = (stride, padding, dilation, groups), output_mask[1]
    want_dx = output_mask[0] or reduce
    dx = dw = None
    sums = dense.empty_acc(x, 0)
    if want_dx or want_dw:
        draw = _draw(grad, out, raw, affine, means, relu, _format(x, weight))
    if want_dx:
        # dgrad reads only the shape and format of its second argument.
        both = want_dw and prologue is None
        dx, dw = _convolution_backward(draw, x, weight, conv, True, both)
        if add is not None:
            dx = add_masked(dx, add, add_out)
    if reduce:
        sums = bn_backward_reduce(dx, None, x, prologue, prologue_relu)
    if sum_raw is not None:
        dx, sums = bn_backward_mask_reduce(dx, x, sum_raw, sum_affine, sum_raw2, sum_affine2)
        dx = dense.dense(dx, _format(x, weight))
    if want_dw and dw is None:
        dw = _convolution_backward(draw, _operand(x, prologue, prologue_relu), weight, conv, False, True)[1]
    if want_dw:
        dw = dense.dense(dw, dense.format_of(weight))
    return (dx if output_mask[0] else x.new_empty(0)), (dw if want_dw else x.new_empty(0)), sums


def conv_dgrad(*arguments):
    """conv_backward's first half → dx, sums."""
    dx, _, sums = conv_backward(*arguments, (True, False))
    return dx, sums


def conv_wgrad(*arguments):
    """conv_backward's second half → dw."""
    return conv_backward(*arguments, False, None, None, (False, True))[1]
