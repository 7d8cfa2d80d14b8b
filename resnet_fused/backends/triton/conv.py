"""The convolution operators of resnet_fused.ops: tensors to the kernels' arguments.

channels_last activations of float32, float16 and bfloat16 are convolved by the kernels of conv_fprop, conv_dgrad and
conv_wgrad; all else by the library, with our batch norm kernels around it.

Tracers see each as one node (backends/traceable.py). torch.library.triton_op would have torch.compile look inside, but
which tiling runs, and on how much memory, depends on sizes and may be measured here, which is nothing to trace.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from resnet_fused.backends.triton import conv_library, dense, tuning
from resnet_fused.backends.triton.bn_apply import bn_apply
from resnet_fused.backends.triton.bn_backward import bn_backward_mask_reduce
from resnet_fused.backends.triton.conv_dgrad import launch_conv_dgrad
from resnet_fused.backends.triton.conv_fprop import launch_conv_fprop
from resnet_fused.backends.triton.conv_plan import (
    GROUP_ROWS,
    ConvShape,
    Device,
    Grid,
    Tiling,
    kernel_arguments,
    math_of,
    offsets_are_wide,
    precision_of,
    tilings,
    unsupported,
)  # fmt: skip
from resnet_fused.backends.triton.conv_wgrad import launch_conv_wgrad

LAST = torch.channels_last


class Conv(NamedTuple):
    """A convolution on a device."""

    shape: ConvShape
    math: str
    device: Device
    name: str | None  # of the kind of device, for its tables
    where: torch.device

    def arguments(self, grid: Grid) -> tuple:
        return kernel_arguments(self.shape, grid)

    def options(self, tiling: Tiling) -> dict:
        """Of a launch: those that all kernels have."""
        return {
            "WIDE": offsets_are_wide(self.shape), "PRECISION": precision_of(self.math), "GROUP_ROWS": GROUP_ROWS,
            "BLOCK_M": tiling.block_m, "BLOCK_N": tiling.block_n, "BLOCK_K": tiling.block_k,
            "num_warps": tiling.num_warps, "num_stages": tiling.num_stages,
        }  # fmt: skip


class Draw(NamedTuple):
    """The gradient of a convolution's output, as conv_prologue.load_draw forms it."""

    tensors: tuple  # grad, out, raw, affine, means
    relu: bool

    @property
    def activations(self) -> int:
        grad, out, raw, *_ = self.tensors
        return 1 + (raw is not None) + (out is not None)


def output_extent(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    reach = size + 2 * padding - dilation * (kernel - 1) - 1
    return reach // stride + 1 if reach >= 0 else 0


def shape_of(x: Tensor, weight: Tensor, stride, padding, dilation, groups) -> ConvShape | None:
    """None where that is no convolution: it is left to the library, whose errors are eager's."""
    pairs = (stride, padding, dilation)
    if x.dim() != 4 or weight.dim() != 4 or groups < 1 or any(len(pair) != 2 for pair in pairs):
        return None
    if min(stride) < 1 or min(padding) < 0 or min(dilation) < 1 or not x.numel() or not weight.numel():
        return None
    N, C, H, W = x.shape
    K, group_C, R, S = weight.shape
    P, Q = map(output_extent, (H, W), (R, S), stride, padding, dilation)
    if group_C * groups != C or K % groups or min(P, Q) < 1:
        return None
    return ConvShape(N, C, H, W, K, R, S, P, Q, *map(tuple, pairs), groups)


@functools.cache
def device_of(device: torch.device) -> tuple[Device, str | None]:
    """What tiles depend on, and the name of its kind. For the CPU an A100's, whose kernels the tests emulate."""
    if device.type != "cuda":
        return Device(80, 108, 163 << 10), None
    properties = torch.cuda.get_device_properties(device)
    shared = triton.runtime.driver.active.utils.get_device_properties(device.index)["max_shared_mem"]
    return Device(10 * properties.major + properties.minor, properties.multi_processor_count, shared), properties.name


def conv_of(x: Tensor, weight: Tensor, stride, padding, dilation, groups) -> Conv | None:
    """None where the library convolves."""
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16) or LAST not in map(dense.format_of, (x, weight)):
        return None
    if weight.dtype != x.dtype or weight.device != x.device:
        return None
    shape = shape_of(x, weight, stride, padding, dilation, groups)
    if shape is None or unsupported(shape):
        return None
    return Conv(shape, math_of(x.dtype, torch.backends.cudnn.allow_tf32), *device_of(x.device), x.device)


@functools.cache
def tuner(name: str) -> tuning.Tuner:
    return tuning.Tuner(name)


def _run(kind: str, conv: Conv, operands: int, variant: dict, launch_with) -> None:
    """launch_with(tiling), of the tiling that tables, measurement or a guess say. `variant`: tensors by their names."""
    candidates = tilings(kind, conv.math, conv.shape, conv.device, operands)
    if conv.name is None:
        return launch_with(candidates[0])
    names = " ".join(name for name, tensor in variant.items() if tensor is not None)
    key = tuning.key_of(kind, conv.math, conv.shape, names)

    def seconds(tiling):
        return tuning.seconds_of(lambda: launch_with(tiling), conv.where)

    launch_with(tuner(conv.name).choose(key, candidates, seconds))


def _last(t: Tensor | None) -> Tensor | None:
    return dense.dense(t, LAST)


def conv_fprop(
    x, weight, stride, padding, dilation, groups,
    prologue, prologue_relu, statistics, epilogue, residual, residual_affine, relu,
):  # fmt: skip
    dense.check_activation(x)
    if epilogue is None and (residual is not None or relu):
        raise RuntimeError("expected epilogue to be given with residual or relu")
    conv = conv_of(x, weight, stride, padding, dilation, groups)
    if conv is None:
        return conv_library.conv_fprop(
            x, weight, stride, padding, dilation, groups,
            prologue, prologue_relu, statistics, epilogue, residual, residual_affine, relu,
        )  # fmt: skip
    if statistics and epilogue is not None:  # only one of the two can be done on the way
        raw, stats = conv_fprop(
            x, weight, stride, padding, dilation, groups, prologue, prologue_relu, True, None, None, None, False
        )
        return bn_apply(raw, epilogue, relu, residual, residual_affine), stats
    s = conv.shape
    y = dense.empty(x, LAST, (s.N, s.K, s.P, s.Q))
    stats = dense.empty_acc(x, 2, s.K) if statistics else None
    if prologue is not None:
        dense.check_rows(prologue, 4, x, "prologue")
    if epilogue is not None:
        dense.check_rows(epilogue, 4, y, "epilogue")
        dense.check_same(residual, y, "residual")
    if residual_affine is not None:
        dense.check_rows(residual_affine, 4, y, "residual_affine")
    x, weight, residual = map(_last, (x, weight, residual))
    prologue, epilogue, residual_affine = map(dense.dense, (prologue, epilogue, residual_affine))

    def launch_with(tiling):
        launch_conv_fprop(conv, tiling, x, weight, y, prologue, prologue_relu, stats, epilogue, residual,
                          residual_affine, relu)  # fmt: skip

    variant = {"prologue": prologue, "statistics": stats, "epilogue": epilogue, "residual": residual}
    _run("fprop", conv, 1, variant, launch_with)
    return y, dense.empty_acc(x, 0) if stats is None else stats


def _draw_of(grad, out, raw, affine, means, relu) -> Draw:
    dense.check_same(out, grad, "out")
    if raw is not None:
        dense.check_same(raw, grad, "raw")
        dense.check_rows(affine, 4, grad, "affine")
        dense.check_rows(means, 2, grad, "means")
    else:
        affine = means = None
    tensors = (*map(_last, (grad, out if relu else None, raw)), *map(dense.dense, (affine, means)))
    return Draw(tensors, relu)


def conv_backward(
    grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation, groups,
    prologue, prologue_relu, reduce, add, add_out, output_mask,
    sum_raw=None, sum_affine=None, sum_raw2=None, sum_affine2=None,
):  # fmt: skip
    dense.check_activation(x)
    dense.check_activation(grad)
    if raw is not None:
        dense.check_activation(raw)
        if affine is None or means is None:
            raise RuntimeError("expected affine and means to be given with raw")
    elif relu and out is None:
        raise RuntimeError("expected raw or out to be given with relu")
    if reduce and prologue is None:
        raise RuntimeError("expected prologue to be given with reduce")
    if add is None and add_out is not None:
        raise RuntimeError("expected add to be given with add_out")
    conv = conv_of(x, weight, stride, padding, dilation, groups)
    if conv is None:
        return conv_library.conv_backward(
            grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation, groups,
            prologue, prologue_relu, reduce, add, add_out, output_mask, sum_raw, sum_affine, sum_raw2, sum_affine2,
        )  # fmt: skip
    s = conv.shape
    if grad.shape != (s.N, s.K, s.P, s.Q):
        raise RuntimeError(f"grad should have size {[s.N, s.K, s.P, s.Q]}, but got {list(grad.shape)}")
    draw = _draw_of(grad, out, raw, affine, means, relu)
    if prologue is not None:
        dense.check_rows(prologue, 4, x, "prologue")
    dense.check_same(add, x, "add")
    dense.check_same(add_out, x, "add_out")
    (want_dx, want_dw), input = output_mask, (_last(x), dense.dense(prologue), prologue_relu)
    dx, sums = x.new_empty(0), dense.empty_acc(x, 0)
    if want_dx or reduce:
        dx, sums = _dgrad(conv, draw, _last(weight), _last(add), _last(add_out), reduce, input)
    if sum_raw is not None:
        dx, sums = bn_backward_mask_reduce(dx, x, sum_raw, sum_affine, sum_raw2, sum_affine2)
        dx = _last(dx)
    dw = _wgrad(conv, draw, input, weight) if want_dw else x.new_empty(0)
    return dx if want_dx else x.new_empty(0), dw, sums


def _dgrad(conv: Conv, draw: Draw, weight, add, add_out, reduce, input):
    x, prologue, prologue_relu = input
    dx = dense.empty(x, LAST)
    sums = dense.empty_acc(x, 2, conv.shape.C) if reduce else None

    def launch_with(tiling):
        launch_conv_dgrad(conv, tiling, draw, weight, dx, add, add_out, sums, x, prologue, prologue_relu)

    variant = dict(zip(("grad", "out", "raw"), draw.tensors), add=add, sums=sums)
    _run("dgrad", conv, draw.activations, variant, launch_with)
    return dx, dense.empty_acc(x, 0) if sums is None else sums


def _wgrad(conv: Conv, draw: Draw, input, weight) -> Tensor:
    x, prologue, prologue_relu = input
    dw = dense.empty(weight, LAST)

    def launch_with(tiling):
        launch_conv_wgrad(conv, tiling, draw, x, prologue, prologue_relu, dw)

    variant = dict(zip(("grad", "out", "raw"), draw.tensors), prologue=prologue)
    _run("wgrad", conv, draw.activations, variant, launch_with)
    return dense.dense(dw, dense.format_of(weight))


def conv_dgrad(*arguments):
    dx, _, sums = conv_backward(*arguments, (True, False))
    return dx, sums


def conv_wgrad(*arguments):
    return conv_backward(*arguments, False, None, None, (False, True))[1]
