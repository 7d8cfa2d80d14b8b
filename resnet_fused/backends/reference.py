"""Every operator as a composition of plain PyTorch operations: the oracle of the tests, on any device and dtype.

Signatures, shapes and equations are those of resnet_fused.ops. Arithmetic is in the accumulation dtype: float64
for float64, else float32; results are rounded once, to the activation's dtype.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format

from resnet_fused.backends import relu_mask
from resnet_fused.backends.frozen_chains import run_frozen_chains

NO_WINNER = 255  # stem_pool's index where no gradient flows


def _acc(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _row(vector: Tensor) -> Tensor:
    return vector.view(1, -1, 1, 1)


def _affine(x: Tensor, affine: Tensor) -> Tensor:
    mean, scale, shift, _ = affine
    return (_acc(x) - _row(mean)) * _row(scale) + _row(shift)


def _normalised(x: Tensor, affine: Tensor) -> Tensor:
    return (_acc(x) - _row(affine[0])) * _row(affine[3])


def _format_as(result: Tensor, x: Tensor) -> Tensor:
    return result.contiguous(memory_format=suggest_memory_format(x))


def _like(result: Tensor, x: Tensor) -> Tensor:
    return _format_as(result.to(x.dtype), x)


def _sum(x: Tensor) -> Tensor:
    return x.sum((0, 2, 3))


def _masked(grad: Tensor, out: Tensor | None, x: Tensor | None, affine: Tensor | None, relu: bool) -> Tensor:
    """ReLU's gradient by eager's rule: it passes wherever the argument is not <= 0, so NaN passes."""
    if not relu:
        return _acc(grad)
    argument = out if out is not None else _affine(x, affine)
    return _acc(grad).masked_fill(argument <= 0, 0)


def bn_statistics(x):
    x = _acc(x)
    mean = x.mean((0, 2, 3))
    return torch.stack((mean, _sum((x - _row(mean)).square())))


def bn_finalize(stats, count, weight, bias, eps):
    mean, m2 = stats
    invstd = (m2 / count + eps).rsqrt()
    scale = invstd if weight is None else weight.to(stats.dtype) * invstd
    shift = torch.zeros_like(mean) if bias is None else bias.to(stats.dtype)
    return torch.stack((mean, scale, shift, invstd))


def bn_apply(x, affine, relu, residual=None, residual_affine=None):
    y = _affine(x, affine)
    if residual is not None:
        y = y + (_acc(residual) if residual_affine is None else _affine(residual, residual_affine))
    return _like(torch.relu(y) if relu else y, x)


def bn_apply_mask(x, affine, residual, residual_affine=None):
    y = bn_apply(x, affine, True, residual, residual_affine)
    return y, relu_mask.pack(y)


def bn_backward_reduce(grad, out, x, affine, relu, x2=None, affine2=None):
    g = _masked(grad, out, x, affine, relu)
    rows = [_sum(g)]
    if x is not None:
        rows.append(_sum(g * _normalised(x, affine)))
    if x2 is not None:
        rows.append(_sum(g * _normalised(x2, affine2)))
    return torch.stack(rows)


def bn_backward_mask_reduce(grad, out, x, affine, x2=None, affine2=None, mask=None):
    stops = ~relu_mask.unpack(mask, x.shape) if relu_mask.fits(mask, x) else out <= 0
    g = _format_as(grad.masked_fill(stops, 0), x)
    return g, bn_backward_reduce(g, None, x, affine, False, x2, affine2)


def _bn_backward(g: Tensor, x: Tensor, affine: Tensor, means: Tensor) -> Tensor:
    return _row(affine[1]) * (g - _row(means[0]) - _normalised(x, affine) * _row(means[1]))


def bn_backward_apply(grad, out, x, affine, relu, means):
    return _like(_bn_backward(_masked(grad, out, x, affine, relu), x, affine, means), x)


def bn_backward_finalize(sums, count, weight, bias):
    def gradient(parameter, row):
        return sums.new_empty(0) if parameter is None else row.to(parameter.dtype, copy=True)

    return sums / count, gradient(weight, sums[1]), gradient(bias, sums[0])


def bn_update_running(stats, counts, momenta, running_mean, running_var, counters):
    for counter in counters:
        counter.add_(1)
    for (mean, m2), count, momentum, *running in zip(stats, counts, momenta, running_mean, running_var):
        for buffer, batch in zip(running, (mean, m2 / (count - 1))):
            buffer.lerp_(batch.to(buffer.dtype), momentum)


def conv_fprop(
    x, weight, stride, padding, dilation, groups,
    prologue, prologue_relu, statistics, epilogue, residual, residual_affine, relu,
):  # fmt: skip
    operand = x if prologue is None else bn_apply(x, prologue, prologue_relu)
    y = F.conv2d(operand, weight, None, stride, padding, dilation, groups)
    stats = bn_statistics(y) if statistics else _acc(x).new_empty(0)
    if epilogue is not None:
        y = bn_apply(y, epilogue, relu, residual, residual_affine)
    return y, stats


def conv_backward(
    grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation, groups,
    prologue, prologue_relu, reduce, add, add_out, output_mask,
    sum_raw=None, sum_affine=None, sum_raw2=None, sum_affine2=None,
):  # fmt: skip
    if raw is not None:
        draw = bn_backward_apply(grad, out, raw, affine, relu, means)
    else:
        draw = _masked(grad, out, None, None, relu).to(grad.dtype)
    operand = x if prologue is None else bn_apply(x, prologue, prologue_relu)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        draw, operand, weight, None, stride, padding, dilation, False, [0, 0], groups,
        [output_mask[0] or reduce, output_mask[1], False],
    )  # fmt: skip
    empty, sums = x.new_empty(0), _acc(x).new_empty(0)
    if dx is not None and add is not None:
        dx = (_acc(dx) + _masked(add, add_out, None, None, add_out is not None)).to(dx.dtype)
    if reduce:
        sums = bn_backward_reduce(dx, None, x, prologue, prologue_relu)
    if sum_raw is not None:
        g, sums = bn_backward_mask_reduce(dx, x, sum_raw, sum_affine, sum_raw2, sum_affine2)
        dx = _format_as(g, dx)
    if output_mask[1]:
        dw = _like(dw, weight)
    return (dx if output_mask[0] else empty), (dw if output_mask[1] else empty), sums


def conv_dgrad(*arguments):
    dx, _, sums = conv_backward(*arguments, (True, False))
    return dx, sums


def conv_wgrad(*arguments):
    return conv_backward(*arguments, False, None, None, (False, True))[1]


def _window_pixels(index: Tensor, width: int) -> Tensor:
    """aten's flat pixel number of each window's winner, from its position 0..8 in the 3x3 window."""
    rows = torch.arange(index.shape[2], device=index.device).view(-1, 1)
    columns = torch.arange(index.shape[3], device=index.device)
    position = index.long().clamp_max(8)
    return (2 * rows - 1 + position // 3) * width + 2 * columns - 1 + position % 3


def frozen_chains(*arguments):
    return run_frozen_chains(conv_fprop, bn_finalize, *arguments)


def stem_pool(x, affine):
    z = torch.relu(_affine(x, affine))
    y, pixel = F.max_pool2d(z, 3, 2, 1, return_indices=True)
    rows = torch.arange(y.shape[2], device=x.device).view(-1, 1)
    columns = torch.arange(y.shape[3], device=x.device)
    position = (pixel // x.shape[3] - (2 * rows - 1)) * 3 + pixel % x.shape[3] - (2 * columns - 1)
    return _like(y, x), _format_as(position.masked_fill(y <= 0, NO_WINNER).to(torch.uint8), x)


def _stem_scatter(grad: Tensor, index: Tensor, input_size) -> Tensor:
    N, C, H, W = input_size
    g = _acc(grad).masked_fill(index == NO_WINNER, 0)
    # A window without a winner points outside of the image at the border; its gradient is zero anyway.
    pixel = _window_pixels(index, W).masked_fill(index == NO_WINNER, 0)
    flat = g.new_zeros(N, C, H * W).scatter_add(2, pixel.flatten(2), g.flatten(2))
    return flat.view(N, C, H, W)


def stem_pool_backward_reduce(grad, index, x, affine):
    if x is None:
        return _sum(_acc(grad).masked_fill(index == NO_WINNER, 0)).unsqueeze(0)
    g = _stem_scatter(grad, index, x.shape)
    return torch.stack((_sum(g), _sum(g * _normalised(x, affine))))


def stem_pool_backward_apply(grad, index, input_size, x, affine, means):
    g = _stem_scatter(grad, index, input_size)
    if x is not None:
        g = _bn_backward(g, x, affine, means)
    return _format_as(g.to(grad.dtype), index)
