"""y = conv([relu] z(x), w) as the product [pixels][taps C] x [taps C][K], one for each group."""

import triton
import triton.language as tl

from resnet_fused.backends.triton.conv_epilogue import launch_conv_statistics, store_moments
from resnet_fused.backends.triton.conv_plan import is_flat, plan_fprop
from resnet_fused.backends.triton.conv_prologue import load_activation
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
from resnet_fused.backends.triton.element import apply_affine, load_affine, zero_up_to_zero
from resnet_fused.backends.triton.launch import launch


@triton.jit
def finish_affine(z, epilogue, residual, residual_affine, offset, inside, channel, channels, RELU: tl.constexpr):
    """[relu](z(conv; epilogue) + (residual | z(residual; residual_affine) | nothing)) in float32."""
    z = apply_affine(z, load_affine(epilogue, channel, channels))
    if residual is not None:
        r = tl.load(residual + offset, mask=inside, other=0.0).to(tl.float32)
        if residual_affine is not None:
            r = apply_affine(r, load_affine(residual_affine, channel, channels))
        z += r
    if RELU:
        z = zero_up_to_zero(z, z)
    return z


@triton.jit(do_not_specialize=SIZES)
def conv_fprop_kernel(
    x, w, y, prologue, partials, epilogue, residual, residual_affine,
    N, H, W, P, Q, padding_h, padding_w, row_tiles, column_tiles, conv, R: tl.constexpr, S: tl.constexpr,
    PROLOGUE_RELU: tl.constexpr, RELU: tl.constexpr,
    FLAT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_ROWS: tl.constexpr,
):  # fmt: skip
    """One tile of y: BLOCK_M pixels, BLOCK_N of the channels of group program_id(1).

    Without epilogue y is the convolution itself, and partials get its moments.
    """
    index: tl.constexpr = tl.int64 if WIDE else tl.int32
    row_tile, column_tile = tile_of(tl.program_id(0), row_tiles, column_tiles, GROUP_ROWS)
    group = tl.program_id(1).to(index)
    m = row_tile.to(index) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = column_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    rows, columns = m < N.to(index) * P * Q, column < conv.group_K

    n, p, q = pixel_of(m, P, Q)
    h0, w0 = p * conv.stride_h - padding_h, q * conv.stride_w - padding_w
    first = ((n * H + h0) * W + w0) * conv.C + group * conv.group_C
    filter = (group * conv.group_K + column) * (R * S * conv.group_C)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    r0, s0, c0 = cursor_of(0, S, conv.group_C, BLOCK_K, FLAT, index)
    for _ in range(steps_of(R * S, conv.group_C, BLOCK_K, FLAT)):
        r, s, c = lanes_of(r0, s0, c0, S, conv.group_C, BLOCK_K, FLAT)
        there = (r < R) & (c < conv.group_C)
        dh, dw = r * conv.dilation_h, s * conv.dilation_w
        inside = rows[:, None] & there[None, :] & in_image(h0, w0, dh, dw, H, W)
        offset = first[:, None] + ((dh * W + dw) * conv.C + c)[None, :]
        a = load_activation(x, prologue, offset, inside, group * conv.group_C + c, conv.C, PROLOGUE_RELU)
        offset = filter[None, :] + ((r * S + s) * conv.group_C + c)[:, None]
        b = tl.load(w + offset, mask=there[:, None] & columns[None, :], other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
        r0, s0, c0 = next_cursor(r0, s0, c0, S, conv.group_C, BLOCK_K, FLAT)

    channel = group * conv.group_K + column
    offset = m[:, None] * conv.K + channel[None, :]
    inside = rows[:, None] & columns[None, :]
    if epilogue is not None:
        acc = finish_affine(acc, epilogue, residual, residual_affine, offset, inside, channel, conv.K, RELU)
    result = acc.to(y.dtype.element_ty)
    tl.store(y + offset, result, mask=inside)
    if partials is not None:  # of the values as they are stored
        store_moments(partials, row_tile, result.to(tl.float32), rows, channel, columns, conv.K)


def launch_conv_fprop(conv, tiling, x, w, y, prologue, prologue_relu, stats, epilogue, residual, residual_affine, relu):
    """Of channels_last tensors; stats [2, K] and what else is None are not there."""
    shape, grid = conv.shape, plan_fprop(conv.shape, tiling, conv.device)
    partials = None if stats is None else empty_acc(x, grid.row_tiles, 3, shape.K)
    launch(
        conv_fprop_kernel, grid.programs,
        x, w, y, prologue, partials, epilogue, residual, residual_affine, *conv.arguments(grid),
        PROLOGUE_RELU=prologue_relu, RELU=relu, FLAT=is_flat(shape.group_C, tiling.block_k), **conv.options(tiling),
    )  # fmt: skip
    if stats is not None:
        launch_conv_statistics(partials, stats, tiling.block_m, shape.N * shape.P * shape.Q)
