"""dx = dgrad(draw, w) as products [pixels][taps K] x [taps K][C], one for each group and each class of pixels.

A class of pixels is those whose coordinates are equal modulo the stride: they are reached by the same taps of the
filter, and by no others, so that no product with zero is computed where the stride is not 1. In one direction, tap r
reaches pixel h from output p = (h + padding - r * dilation) / stride, if that is whole. Of the pixels
h = residue + stride * i, these are the taps r = first + tap_step * t, with tap_step = stride / gcd(stride, dilation),
from output p = i + origin - t * (tap_step * dilation / stride).
"""

import triton
import triton.language as tl

from resnet_fused.backends.triton.conv_epilogue import launch_conv_sums, store_sums
from resnet_fused.backends.triton.conv_plan import is_flat, plan_dgrad
from resnet_fused.backends.triton.conv_prologue import load_draw, load_masked
from resnet_fused.backends.triton.conv_tile import (
    SIZES,
    cursor_of,
    in_image,
    lanes_of,
    next_cursor,
    pixel_of,
    steps_of,
    tile_of,
)
from resnet_fused.backends.triton.dense import empty_acc
from resnet_fused.backends.triton.element import apply_affine, load_affine, load_row, zero_up_to_zero
from resnet_fused.backends.triton.launch import launch


@triton.jit
def class_taps(residue, taps, tap_step, stride, padding, dilation):
    """first, the number of taps, and origin of a class in one direction. One of tap_step taps in a row is the first."""
    first = tl.full([], 0, tl.int32) + taps
    for r in range(tap_step):
        first = tl.where((residue + padding - r * dilation) % stride == 0, r, first)
    return first, (taps - first + tap_step - 1) // tap_step, (residue + padding - first * dilation) // stride


@triton.jit(do_not_specialize=SIZES)
def conv_dgrad_kernel(
    grad, out, raw, affine, means, w, dx, add, add_out, partials, x, prologue,
    N, H, W, P, Q, padding_h, padding_w, row_tiles, column_tiles, conv, R: tl.constexpr, S: tl.constexpr,
    DRAW_RELU: tl.constexpr, PROLOGUE_RELU: tl.constexpr,
    FLAT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_ROWS: tl.constexpr,
):  # fmt: skip
    """One tile of dx: BLOCK_M pixels of one class, BLOCK_N of the channels of group program_id(1).

    dx = dgrad(draw, w) + (add where not (add_out <= 0)); partials get the sums of g, which is dx where not
    (z(x; prologue) <= 0).
    """
    index: tl.constexpr = tl.int64 if WIDE else tl.int32
    row_tile, column_tile = tile_of(tl.program_id(0), row_tiles, column_tiles, GROUP_ROWS)
    group = tl.program_id(1).to(index)
    class_tiles = row_tiles // (conv.stride_h * conv.stride_w)
    residue_h, residue_w = row_tile // class_tiles // conv.stride_w, row_tile // class_tiles % conv.stride_w
    first_r, taps_r, origin_h = class_taps(
        residue_h, R, conv.tap_step_h, conv.stride_h, padding_h, conv.dilation_h
    )
    first_s, taps_s, origin_w = class_taps(
        residue_w, S, conv.tap_step_w, conv.stride_w, padding_w, conv.dilation_w
    )
    # For all the pixels that the largest class has; this one may have a row or a column less.
    m = (row_tile % class_tiles).to(index) * BLOCK_M + tl.arange(0, BLOCK_M)
    n, i, j = pixel_of(m, tl.cdiv(H, conv.stride_h), tl.cdiv(W, conv.stride_w))
    h, v = residue_h + conv.stride_h * i, residue_w + conv.stride_w * j
    column = column_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    rows, columns = (n < N) & (h < H) & (v < W), column < conv.group_C

    p0, q0 = i + origin_h, j + origin_w
    step_h = conv.tap_step_h * conv.dilation_h // conv.stride_h
    step_w = conv.tap_step_w * conv.dilation_w // conv.stride_w
    first = ((n * P + p0) * Q + q0) * conv.K + group * conv.group_K
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    t0, u0, k0 = cursor_of(0, taps_s, conv.group_K, BLOCK_K, FLAT, index)
    for _ in range(steps_of(taps_r * taps_s, conv.group_K, BLOCK_K, FLAT)):
        t, u, k = lanes_of(t0, u0, k0, taps_s, conv.group_K, BLOCK_K, FLAT)
        there = (t < taps_r) & (k < conv.group_K)
        dp, dq = -t * step_h, -u * step_w
        inside = rows[:, None] & there[None, :] & in_image(p0, q0, dp, dq, P, Q)
        offset = first[:, None] + ((dp * Q + dq) * conv.K + k)[None, :]
        a = load_draw(grad, out, raw, affine, means, offset, inside, group * conv.group_K + k, conv.K, DRAW_RELU)
        r, s = first_r + t * conv.tap_step_h, first_s + u * conv.tap_step_w
        offset = (((group * conv.group_K + k) * R + r) * S + s)[:, None] * conv.group_C + column[None, :]
        b = tl.load(w + offset, mask=there[:, None] & columns[None, :], other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
        t0, u0, k0 = next_cursor(t0, u0, k0, taps_s, conv.group_K, BLOCK_K, FLAT)

    channel = group * conv.group_C + column
    offset = (((n * H + h) * W + v) * conv.C)[:, None] + channel[None, :]
    inside = rows[:, None] & columns[None, :]
    if add is not None:
        acc = acc.to(dx.dtype.element_ty).to(tl.float32) + load_masked(add, add_out, offset, inside)
    result = acc.to(dx.dtype.element_ty)
    tl.store(dx + offset, result, mask=inside)
    if partials is not None:  # of the values as they are stored
        value = tl.load(x + offset, mask=inside, other=0.0).to(tl.float32)
        g = tl.where(inside, result.to(tl.float32), 0.0)
        if PROLOGUE_RELU:
            g = zero_up_to_zero(apply_affine(value, load_affine(prologue, channel, conv.C)), g)
        store_sums(partials, row_tile, g, value - load_row(prologue, 0, channel, conv.C), channel, columns, conv.C)


def launch_conv_dgrad(conv, tiling, draw, w, dx, add, add_out, sums, x, prologue, prologue_relu):
    """Of channels_last tensors; sums [2, C] and what else is None are not there. For sums, x and prologue are read."""
    shape, grid = conv.shape, plan_dgrad(conv.shape, tiling, conv.device)
    partials = None if sums is None else empty_acc(dx, grid.row_tiles, 2, shape.C)
    of_sums = (None, None, None) if sums is None else (partials, x, prologue)
    launch(
        conv_dgrad_kernel, grid.programs,
        *draw.tensors, w, dx, add, add_out, *of_sums, *conv.arguments(grid),
        DRAW_RELU=draw.relu, PROLOGUE_RELU=sums is not None and prologue_relu,
        FLAT=is_flat(shape.group_K, tiling.block_k), **conv.options(tiling),
    )  # fmt: skip
    if sums is not None:
        launch_conv_sums(partials, prologue, sums)
