"""y = [relu](z(x) + (residual | z(residual) | nothing)), and y = base + masked grad: one pass over memory each.

An argument that is None is known when the kernel is compiled: what is not asked for is not in it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from resnet_fused.backends import relu_mask
from resnet_fused.backends.triton import dense
from resnet_fused.backends.triton.element import apply_affine, load_affine, to_acc, zero_up_to_zero
from resnet_fused.backends.triton.launch import launch
from resnet_fused.backends.triton.relu_mask import store_mask
from resnet_fused.backends.triton.sweep import sweep_of
from resnet_fused.backends.triton.tile import channels_of, tile_of, tiles_of


@triton.jit
def bn_apply_kernel(
    x, affine, residual, residual_affine, y, mask, view,
    RELU: tl.constexpr, OF_CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    first, end = tiles_of(view)
    channel = channels_of(BLOCK_C)
    z = load_affine(affine, channel, view.channels)
    if residual_affine is not None:
        z_residual = load_affine(residual_affine, channel, view.channels)
    for tile in range(first, end):
        offset, there = tile_of(tile, channel, view, BLOCK_P)
        value = apply_affine(to_acc(tl.load(x + offset, mask=there)), z)
        if residual is not None:
            r = to_acc(tl.load(residual + offset, mask=there))
            if residual_affine is not None:
                r = apply_affine(r, z_residual)
            value += r
        if RELU:
            value = zero_up_to_zero(value, value)
        value = value.to(y.dtype.element_ty)
        tl.store(y + offset, value, mask=there)
        if mask is not None:  # of what is stored: a small value may have become 0
            store_mask(mask, to_acc(value), tile, view, OF_CHANNELS, BLOCK_P, BLOCK_C)


@triton.jit
def add_masked_kernel(base, grad, out, y, view, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    first, end = tiles_of(view)
    channel = channels_of(BLOCK_C)
    for tile in range(first, end):
        offset, there = tile_of(tile, channel, view, BLOCK_P)
        g = to_acc(tl.load(grad + offset, mask=there))
        if out is not None:
            g = zero_up_to_zero(to_acc(tl.load(out + offset, mask=there)), g)
        if base is not None:
            g += to_acc(tl.load(base + offset, mask=there))
        tl.store(y + offset, g.to(y.dtype.element_ty), mask=there)


def bn_apply(x, affine, relu, residual=None, residual_affine=None):
    """[relu](z(x) + residual, or its z), like x."""
    return bn_apply_into(dense.empty(x, dense.format_of(x)), x, affine, relu, residual, residual_affine)


def bn_apply_mask(x, affine, residual, residual_affine=None):
    """relu(z(x) + residual, or its z), like x, and its mask."""
    y = dense.empty(x, dense.format_of(x))
    mask = relu_mask.empty(y)
    bn_apply_into(y, x, affine, True, residual, residual_affine, None if mask.dim() == 1 else mask)
    return y, mask


def bn_apply_into(y, x, affine, relu, residual=None, residual_affine=None, mask=None):
    """bn_apply's, written to a dense tensor, which may be x; and its mask."""
    dense.check_activation(x)
    dense.check_rows(affine, 4, x, "affine")
    dense.check_same(residual, x, "residual")
    if residual_affine is not None:
        dense.check_rows(residual_affine, 4, x, "residual_affine")
    if y.numel():
        memory_format = dense.format_of(y)
        sweep = sweep_of(y)
        launch(
            bn_apply_kernel, sweep.grid,
            dense.dense(x, memory_format), dense.dense(affine), dense.dense(residual, memory_format),
            dense.dense(residual_affine), y, mask, sweep.view, RELU=relu, OF_CHANNELS=relu_mask.of_channels(y), **sweep.blocks,
        )  # fmt: skip
    return y


def add_masked(base, grad, out):
    """base + (grad where not (out <= 0)), like grad; without base that gradient alone. base is overwritten."""
    dense.check_same(base, grad, "base")
    dense.check_same(out, grad, "out")
    memory_format = dense.format_of(grad if base is None else base)
    y = dense.empty(grad, memory_format) if base is None else dense.dense(base, memory_format)
    if y.numel():
        sweep = sweep_of(y)
        launch(
            add_masked_kernel, sweep.grid,
            None if base is None else y, dense.dense(grad, memory_format), dense.dense(out, memory_format), y,
            sweep.view, **sweep.blocks,
        )  # fmt: skip
    return y
