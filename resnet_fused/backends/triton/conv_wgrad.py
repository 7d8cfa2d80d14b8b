"""dw = the sum over output pixels of draw * input, as the product [K][pixels] x [pixels][taps C], one for each group.

The pixels are split over programs, for the result alone has too few tiles; each split has partial sums of its own.
"""

import triton
import triton.language as tl

from resnet_fused.backends.triton.conv_epilogue import launch_conv_splits
from resnet_fused.backends.triton.conv_plan import is_flat, plan_wgrad
from resnet_fused.backends.triton.conv_prologue import load_activation, load_draw
from resnet_fused.backends.triton.conv_tile import SIZES, cursor_of, in_image, lanes_of, pixel_of, tile_of
from resnet_fused.backends.triton.dense import empty_acc
from resnet_fused.backends.triton.launch import launch


@triton.jit(do_not_specialize=SIZES)
def conv_wgrad_kernel(
    grad, out, raw, affine, means, x, prologue, dw,
    N, H, W, P, Q, padding_h, padding_w, row_tiles, column_tiles, split_steps, conv, R: tl.constexpr, S: tl.constexpr,
    DRAW_RELU: tl.constexpr, PROLOGUE_RELU: tl.constexpr,
    FLAT: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_ROWS: tl.constexpr,
):  # fmt: skip
    """One tile of split program_id(2) of dw [splits][K][R][S][C / groups], from split_steps steps of BLOCK_K pixels.

    The tile is BLOCK_M filters of group program_id(1) and BLOCK_N of their elements, which are FLAT or of one tap as
    the steps of the other passes are.
    """
    index: tl.constexpr = tl.int64 if WIDE else tl.int32
    row_tile, column_tile = tile_of(tl.program_id(0), row_tiles, column_tiles, GROUP_ROWS)
    group, split = tl.program_id(1).to(index), tl.program_id(2)
    row = row_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    r0, s0, c0 = cursor_of(column_tile, S, conv.group_C, BLOCK_N, FLAT, index)
    r, s, c = lanes_of(r0, s0, c0, S, conv.group_C, BLOCK_N, FLAT)
    rows, columns = row < conv.group_K, (r < R) & (c < conv.group_C)
    filter, channel = group * conv.group_K + row, group * conv.group_C + c
    dh, dw_ = r * conv.dilation_h, s * conv.dilation_w

    first = split.to(index) * split_steps * BLOCK_K
    end = tl.minimum(first + split_steps * BLOCK_K, N.to(index) * P * Q)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for step in range(tl.cdiv(end - first, BLOCK_K).to(tl.int32)):
        m = first + step * BLOCK_K + tl.arange(0, BLOCK_K)
        within = (m < end)[:, None]
        offset = m[:, None] * conv.K + filter[None, :]
        a = load_draw(grad, out, raw, affine, means, offset, within & rows[None, :], filter, conv.K, DRAW_RELU)
        n, p, q = pixel_of(m, P, Q)
        h0, w0 = p * conv.stride_h - padding_h, q * conv.stride_w - padding_w
        inside = within & columns[None, :] & in_image(h0, w0, dh, dw_, H, W)
        offset = (((n * H + h0) * W + w0) * conv.C)[:, None]
        offset += ((dh * W + dw_) * conv.C + channel)[None, :]
        b = load_activation(x, prologue, offset, inside, channel, conv.C, PROLOGUE_RELU)
        acc = tl.dot(tl.trans(a), b, acc, input_precision=PRECISION)

    element = (r * S + s) * conv.group_C + c
    offset = (split.to(tl.int64) * conv.K + filter)[:, None] * (R * S * conv.group_C) + element[None, :]
    tl.store(dw + offset, acc.to(dw.dtype.element_ty), mask=rows[:, None] & columns[None, :])


def launch_conv_wgrad(conv, tiling, draw, x, prologue, prologue_relu, dw):
    """Of channels_last tensors; the prologue may be None."""
    shape, grid = conv.shape, plan_wgrad(conv.shape, tiling, conv.device)
    partials = empty_acc(dw, grid.splits, dw.numel()) if grid.splits > 1 else None
    launch(
        conv_wgrad_kernel, grid.programs,
        *draw.tensors, x, prologue, dw if partials is None else partials, *conv.arguments(grid),
        DRAW_RELU=draw.relu, PROLOGUE_RELU=prologue_relu, FLAT=is_flat(shape.group_C, tiling.block_n),
        **conv.options(tiling),
    )  # fmt: skip
    if partials is not None:
        launch_conv_splits(partials, dw)
