"""The stem's max pooling 3x3 / 2, padding 1, of relu(z(x)) in one pass, with the winner's place in its window; and its
backward by gathering: a pixel of x adds the gradients of the windows (two at most in each direction) that it won, so
that each result is written once, in a fixed order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from resnet_fused.backends.triton import dense
from resnet_fused.backends.triton.bn_backward import apply_draw, load_draw, merge_sums, store_sums
from resnet_fused.backends.triton.element import apply_affine, load_affine, load_row, to_acc
from resnet_fused.backends.triton.launch import launch
from resnet_fused.backends.triton.sweep import THREAD_BYTES, Sweep, plan_sweep
from resnet_fused.backends.triton.tile import channels_of, image_of, tile_of, tiles_of

NO_WINNER = tl.constexpr(255)


class StemShape(NamedTuple):
    """Pixels along the axes of x and of y."""

    height: int
    width: int
    out_height: int
    out_width: int


@triton.jit
def pixels_of(tile, view, width, BLOCK_P: tl.constexpr):
    """A tile's image, and the rows and columns [BLOCK_P] of its pixels."""
    image, first = image_of(tile, view)
    pixel = first.to(tl.int32) + tl.arange(0, BLOCK_P)
    return image, pixel // width, pixel % width


@triton.jit
def offset_of(image, pixel, channel, view):
    """As tile_of's, of pixels [BLOCK_P] in any order."""
    row = image * view.image_stride + pixel.to(tl.int64) * view.pixel_stride
    return row[:, None] + (channel.to(tl.int64) * view.channel_stride)[None, :]


@triton.jit
def stem_pool_kernel(
    x, affine, y, index, view, x_view, shape, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """A sweep over y. Starting at 0 with no winner is ReLU and "no gradient" in one: only z > 0 or a NaN wins. The
    first of equal maxima wins, and the last NaN, as in PyTorch.
    """
    first, end = tiles_of(view)
    channel = channels_of(BLOCK_C)
    z = load_affine(affine, channel, view.channels)
    for tile in range(first, end):
        offset, there = tile_of(tile, channel, view, BLOCK_P)
        image, row, column = pixels_of(tile, view, shape.out_width, BLOCK_P)
        best = tl.zeros([BLOCK_P, BLOCK_C], z[0].dtype)
        winner = tl.full([BLOCK_P, BLOCK_C], NO_WINNER, tl.int32)
        for place in tl.static_range(9):
            h, w = 2 * row - 1 + place // 3, 2 * column - 1 + place % 3
            inside = there & ((h >= 0) & (h < shape.height) & (w >= 0) & (w < shape.width))[:, None]
            at = offset_of(image, h * shape.width + w, channel, x_view)
            value = apply_affine(to_acc(tl.load(x + at, mask=inside, other=0)), z)
            wins = inside & ((value > best) | (value != value))
            best = tl.where(wins, value, best)
            winner = tl.where(wins, place, winner)
        tl.store(y + offset, best.to(y.dtype.element_ty), mask=there)
        tl.store(index + offset, winner.to(tl.uint8), mask=there)


@triton.jit
def gather(grad, index, tile, channel, there, view, y_view, shape, BLOCK_P: tl.constexpr):
    """The gradient that the pixels of a tile of x receive. Row h of x is in the windows of row h / 2 of y, at place 1
    (h even) or 2 (h odd), and for odd h in those of the row behind it, at place 0; columns likewise.
    """
    image, h, w = pixels_of(tile, view, shape.width, BLOCK_P)
    g = to_acc(tl.zeros(there.shape, grad.dtype.element_ty))
    for i in tl.static_range(2):
        for j in tl.static_range(2):
            row, column = h // 2 + i, w // 2 + j
            place = (1 + h % 2 if i == 0 else h * 0) * 3 + (1 + w % 2 if j == 0 else w * 0)
            inside = (row < shape.out_height) & (column < shape.out_width)
            inside = inside & ((i == 0) | (h % 2 == 1)) & ((j == 0) | (w % 2 == 1))
            inside = there & inside[:, None]
            at = offset_of(image, row * shape.out_width + column, channel, y_view)
            won = tl.load(index + at, mask=inside, other=NO_WINNER).to(tl.int32) == place[:, None]
            g += tl.where(won, to_acc(tl.load(grad + at, mask=inside, other=0)), 0)
    return g


@triton.jit
def stem_pool_backward_reduce_kernel(
    grad, index, x, affine, partial, view, y_view, shape, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """A sweep over x, whether it is given or not."""
    ROWS: tl.constexpr = 2 if x is not None else 1
    first, end = tiles_of(view)
    channel = channels_of(BLOCK_C)
    acc: tl.constexpr = tl.float64 if grad.dtype.element_ty == tl.float64 else tl.float32
    sums = tl.zeros([BLOCK_P, BLOCK_C], acc)
    products = tl.zeros([BLOCK_P, BLOCK_C], acc)
    if x is not None:
        mean = load_row(affine, 0, channel, view.channels)
    for tile in range(first, end):
        offset, there = tile_of(tile, channel, view, BLOCK_P)
        g = gather(grad, index, tile, channel, there, view, y_view, shape, BLOCK_P)
        sums += g
        if x is not None:
            products = tl.fma(g, to_acc(tl.load(x + offset, mask=there, other=0)) - mean, products)
    store_sums(sums, partial, ROWS, 0, channel, view.channels)
    if x is not None:
        store_sums(products, partial, ROWS, 1, channel, view.channels)


@triton.jit
def stem_pool_backward_apply_kernel(
    grad, index, x, affine, means, y, view, y_view, shape, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    first, end = tiles_of(view)
    channel = channels_of(BLOCK_C)
    if x is not None:
        draw = load_draw(affine, means, channel, view.channels)
    for tile in range(first, end):
        offset, there = tile_of(tile, channel, view, BLOCK_P)
        g = gather(grad, index, tile, channel, there, view, y_view, shape, BLOCK_P)
        if x is not None:
            g = apply_draw(g, to_acc(tl.load(x + offset, mask=there)), draw)
        tl.store(y + offset, g.to(y.dtype.element_ty), mask=there)


def _pooled(size: int) -> int:  # 3 wide, stride 2, padding 1
    return (size - 1) // 2 + 1 if size else 0


def _sweep(size, memory_format, dtype) -> Sweep:
    """Image by image: windows end at an image's border. Pixels of one are counted in 32 bits."""
    N, C, H, W = size
    if H * W >= 2**31:
        raise ValueError(f"the stem takes images of less than 2^31 pixels, not {H} x {W}")
    channels_last, acc_bytes = memory_format == torch.channels_last, 8 if dtype == torch.float64 else 4
    # Contiguous, each element of a thread has windows of its own: fewer of them, or registers run out.
    share = {} if channels_last else {"thread_bytes": THREAD_BYTES // 2}
    return plan_sweep(N, C, H * W, channels_last, acc_bytes, join=False, **share)


def _shape(x_size, y_size) -> StemShape:
    return StemShape(*x_size[2:], *y_size[2:])


def stem_pool(x, affine):
    """MaxPool 3×3/2, padding 1, of relu(z(x)) → y, index: uint8 like y, the winner's place 0…8 in a window, or 255."""
    dense.check_activation(x)
    dense.check_rows(affine, 4, x, "affine")
    memory_format = dense.format_of(x)
    x, size = dense.dense(x, memory_format), (*x.shape[:2], _pooled(x.shape[2]), _pooled(x.shape[3]))
    y = dense.empty(x, memory_format, size)
    index = dense.empty(x, memory_format, size, torch.uint8)
    if y.numel():
        sweep, x_view = _sweep(size, memory_format, x.dtype), _sweep(x.shape, memory_format, x.dtype).view
        launch(
            stem_pool_kernel, sweep.grid, x, dense.dense(affine), y, index, sweep.view, x_view,
            _shape(x.shape, size), **sweep.blocks,
        )  # fmt: skip
    return y, index


def _check(grad, index, input_size, x, affine):
    dense.check_activation(grad)
    size = torch.Size((*input_size[:2], _pooled(input_size[2]), _pooled(input_size[3])))
    if index.dtype != torch.uint8 or index.device != grad.device:
        got = f"{index.dtype} on {index.device}"
        raise RuntimeError(f"expected index to have dtype torch.uint8 on {grad.device}, but got {got}")
    if grad.shape != size or index.shape != size:
        raise RuntimeError(
            f"grad and index should have size {list(size)}, but got {list(grad.shape)} and {list(index.shape)}"
        )
    if x is not None:
        dense.check_rows(affine, 4, x, "affine")


def stem_pool_backward_reduce(grad, index, x, affine):
    """sums, acc [1..2, C] of the gradient that reaches z(x): sum g, and with x sum g·x̂."""
    N, C, P, Q = grad.shape
    # Without x its size does not matter, but for which windows there are: the largest has them all.
    size = torch.Size((N, C, 2 * P, 2 * Q)) if x is None else x.shape
    _check(grad, index, size, x, affine)
    rows = 1 if x is None else 2
    if not grad.numel():
        return dense.empty_acc(grad, rows, C).zero_()
    memory_format, affine = dense.format_of(index), dense.dense(affine)
    sweep, y_view = _sweep(size, memory_format, grad.dtype), _sweep(grad.shape, memory_format, grad.dtype).view
    partial = grad.new_empty(sweep.chunks, rows, C, dtype=torch.float64)
    launch(
        stem_pool_backward_reduce_kernel, sweep.grid,
        dense.dense(grad, memory_format), dense.dense(index, memory_format),
        dense.dense(x, memory_format), affine if rows == 2 else None, partial, sweep.view, y_view,
        _shape(size, grad.shape), **sweep.blocks,
    )  # fmt: skip
    return merge_sums(partial, affine if rows == 2 else None, None, grad)


def stem_pool_backward_apply(grad, index, input_size, x, affine, means):
    """The gradient of x, as bn_backward_apply of what reaches z(x); or of z(x) without x."""
    _check(grad, index, input_size, x, affine)
    if x is not None:
        dense.check_rows(means, 2, x, "means")
    memory_format = dense.format_of(index)
    y = dense.empty(grad, memory_format, tuple(input_size))
    if y.numel():
        sweep, y_view = _sweep(y.shape, memory_format, grad.dtype), _sweep(grad.shape, memory_format, grad.dtype).view
        launch(
            stem_pool_backward_apply_kernel, sweep.grid, dense.dense(grad, memory_format),
            dense.dense(index, memory_format), dense.dense(x, memory_format),
            None if x is None else dense.dense(affine), None if x is None else dense.dense(means), y, sweep.view, y_view, _shape(y.shape, grad.shape),
            **sweep.blocks,
        )  # fmt: skip
    return y
