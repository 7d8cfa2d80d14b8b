"""How a convolution is cut into tiles: pure functions of the problem and the device."""

from __future__ import annotations

import functools
import math as maths
from typing import NamedTuple

import torch

from resnet_fused.backends.triton.sweep import ceil_div


class ConvShape(NamedTuple):
    """Input [N, H, W, C], weights [K, R, S, C / groups], output [N, P, Q, K]."""

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    P: int
    Q: int
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def group_C(self) -> int:
        return self.C // self.groups

    @property
    def group_K(self) -> int:
        return self.K // self.groups

    @property
    def filter_elements(self) -> int:
        return self.R * self.S * self.group_C


class Device(NamedTuple):
    architecture: int  # 10 * major + minor of the compute capability
    multiprocessors: int
    shared_bytes: int  # that a program may have


class Tiling(NamedTuple):
    """A tile of the result is block_m x block_n, a step of its reduction block_k."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


# By the arithmetic of the product: "half" (float16 and bfloat16 on tensor cores), "tf32", "float32" (multiply-adds).
# From the largest tile to the smallest: fewer bytes are read for a product the larger its tile is.
TILINGS = {
    "half": (
        Tiling(128, 128, 64, 8, 3),
        Tiling(128, 128, 32, 8, 3),
        Tiling(128, 64, 64, 8, 3),
        Tiling(128, 64, 32, 4, 3),
        Tiling(64, 64, 32, 4, 3),
        Tiling(64, 32, 32, 4, 4),
        Tiling(32, 32, 32, 4, 4),
    ),
    "tf32": (
        Tiling(128, 128, 32, 8, 3),
        Tiling(128, 64, 32, 8, 3),
        Tiling(64, 64, 32, 4, 3),
        Tiling(32, 32, 32, 4, 3),
    ),
    "float32": (
        Tiling(128, 64, 16, 8, 2),
        Tiling(64, 64, 16, 4, 2),
        Tiling(32, 32, 16, 4, 2),
    ),
}  # fmt: skip
# Of compute capabilities by their first digit, where ptxas has not registers enough: tests/resources/triton_conv.json.
SPILLING = frozenset({
    ("fprop", "half", Tiling(128, 128, 32, 8, 3), 9),
    ("fprop", "half", Tiling(64, 32, 32, 4, 4), 12),
    ("fprop", "tf32", Tiling(128, 128, 32, 8, 3), 9),
    ("dgrad", "float32", Tiling(128, 64, 16, 8, 2), 12),
    ("wgrad", "half", Tiling(128, 128, 32, 8, 3), 10),
    ("wgrad", "tf32", Tiling(64, 64, 32, 4, 3), 10),
})  # fmt: skip
WARPGROUPS = (9, 10)  # whose matrix instructions read steps of 64 channels of 16 bits at a time
GROUP_ROWS = 8  # rows of tiles that are worked on together, see conv_tile.tile_of
MIN_SPLIT_STEPS = 8  # of wgrad: enough work to be worth the memory for a split's sums


def math_of(dtype: torch.dtype, allow_tf32: bool) -> str:
    return "half" if dtype.itemsize == 2 else "tf32" if allow_tf32 else "float32"


def precision_of(math: str) -> str:
    """tl.dot's input_precision."""
    return "tf32" if math == "tf32" else "ieee"


def is_flat(channels: int, block: int) -> bool:
    """Whether a block holds channels of several taps, for it would be part empty with those of one: see conv_tile."""
    return channels < block


def flat_tiles(taps: int, channels: int, block: int) -> int:
    """Blocks that hold taps x channels."""
    return ceil_div(taps * channels, block) if is_flat(channels, block) else taps * ceil_div(channels, block)


def tap_step(stride: int, dilation: int) -> int:
    """Taps r, r + tap_step, ... reach the same pixels: see conv_dgrad."""
    return stride // maths.gcd(stride, dilation)


class Grid(NamedTuple):
    """Programs (row_tiles * column_tiles, groups, splits)."""

    row_tiles: int
    column_tiles: int
    groups: int
    splits: int = 1
    split_steps: int = 0  # of wgrad, for each split

    @property
    def programs(self) -> tuple[int, int, int]:
        return self.row_tiles * self.column_tiles, self.groups, self.splits


def plan_fprop(shape: ConvShape, tiling: Tiling, device: Device) -> Grid:
    rows = shape.N * shape.P * shape.Q
    return Grid(ceil_div(rows, tiling.block_m), ceil_div(shape.group_K, tiling.block_n), shape.groups)


def plan_dgrad(shape: ConvShape, tiling: Tiling, device: Device) -> Grid:
    """The tiles of each class of pixels, of as many pixels as the largest has."""
    (stride_h, stride_w), N = shape.stride, shape.N
    tiles = ceil_div(N * ceil_div(shape.H, stride_h) * ceil_div(shape.W, stride_w), tiling.block_m)
    return Grid(tiles * stride_h * stride_w, ceil_div(shape.group_C, tiling.block_n), shape.groups)


def plan_wgrad(shape: ConvShape, tiling: Tiling, device: Device) -> Grid:
    """Pixels are split until there are two programs for each multiprocessor."""
    rows = ceil_div(shape.group_K, tiling.block_m)
    columns = flat_tiles(shape.R * shape.S, shape.group_C, tiling.block_n)
    steps = ceil_div(shape.N * shape.P * shape.Q, tiling.block_k)
    wanted = ceil_div(2 * device.multiprocessors, rows * columns * shape.groups)
    split_steps = ceil_div(steps, max(min(wanted, steps // MIN_SPLIT_STEPS), 1))
    return Grid(rows, columns, shape.groups, ceil_div(steps, split_steps), split_steps)


class Geometry(NamedTuple):
    """Arguments of the kernels that shape the code: Triton compiles one for 1, multiples of 16 and others each."""

    C: int
    K: int
    group_C: int
    group_K: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    tap_step_h: int
    tap_step_w: int


def kernel_arguments(shape: ConvShape, grid: Grid) -> tuple:
    """What all kernels take after their tensors; split_steps only where there are any."""
    s = shape
    geometry = Geometry(s.C, s.K, s.group_C, s.group_K, *s.stride, *s.dilation, *map(tap_step, s.stride, s.dilation))
    steps = (grid.split_steps,) if grid.split_steps else ()
    return s.N, s.H, s.W, s.P, s.Q, *s.padding, grid.row_tiles, grid.column_tiles, *steps, geometry, s.R, s.S


PLANS = {"fprop": plan_fprop, "dgrad": plan_dgrad, "wgrad": plan_wgrad}


def shared_bytes(math: str, tiling: Tiling, tensors: int) -> int:
    """What a program needs at most. `tensors` form the first operand.

    Triton keeps all stages of what it multiplies as it is, one less of what it forms in registers, two tiles of what
    was formed, and constants of channels. tests/resources/triton_conv.json has the true numbers.
    """
    size = 2 if math == "half" else 4
    rows = (tiling.num_stages - 1) * tensors * tiling.block_m + 2 * tiling.block_m
    return size * tiling.block_k * (rows + tiling.num_stages * tiling.block_n) + (8 << 10)


def possible_tilings(kind: str, math: str, device: Device, tensors: int) -> tuple[Tiling, ...]:
    """Those that a device can run without spilled registers. The smallest always is among them."""
    major = device.architecture // 10

    def possible(t: Tiling) -> bool:
        suits = math != "half" or t.block_k <= 32 or major in WARPGROUPS
        fits = shared_bytes(math, t, tensors) <= device.shared_bytes
        return suits and fits and (kind, math, t, major) not in SPILLING

    return tuple(filter(possible, TILINGS[math][:-1])) + TILINGS[math][-1:]


@functools.lru_cache
def tilings(kind: str, math: str, shape: ConvShape, device: Device, tensors: int) -> tuple[Tiling, ...]:
    """Those worth measuring, the likely best first: the largest that leaves no multiprocessor idle.

    One of which half a tile or more lies beyond the result is not among them unless it is the smallest.
    """
    *larger, smallest = possible_tilings(kind, math, device, tensors)
    rows = shape.group_K if kind == "wgrad" else shape.N * max(shape.P * shape.Q, shape.H * shape.W)
    columns = {"fprop": shape.group_K, "dgrad": shape.group_C, "wgrad": shape.filter_elements}[kind]
    useful = [t for t in larger if t.block_n < 2 * columns and t.block_m < 2 * rows]

    def idle(t: Tiling) -> int:
        return max(device.multiprocessors - maths.prod(PLANS[kind](shape, t, device).programs), 0)

    return tuple(sorted([*useful, smallest], key=idle))  # stable: of the busy ones the largest comes first


MAX_INT32 = 2**31 - 1
LARGEST_BLOCK = 256


def largest_offset(shape: ConvShape) -> int:
    """A bound of all offsets that programs compute, also of what they do not access: of pixels of the last tile that
    are beyond the end, in the images after the last, and of taps in the padding."""
    s = shape
    of_class = ceil_div(s.H, s.stride[0]) * ceil_div(s.W, s.stride[1])
    images = s.N + ceil_div(LARGEST_BLOCK, min(s.P * s.Q, of_class)) + 1
    reach_h, reach_w = (2 * p + d * n + t for p, d, n, t in zip(s.padding, s.dilation, (s.R, s.S), s.stride))

    def elements(rows, columns, channels):
        return (((images * rows + reach_h) * columns) + reach_w) * channels + LARGEST_BLOCK

    weights = (s.K + LARGEST_BLOCK) * s.R * s.S * (s.group_C + LARGEST_BLOCK)
    return max(elements(s.H, s.W, s.C), elements(s.P, s.Q, s.K), weights)


def offsets_are_wide(shape: ConvShape) -> bool:
    """Whether offsets need int64."""
    return largest_offset(shape) > MAX_INT32


def unsupported(shape: ConvShape) -> str | None:
    """Why the kernels cannot run a problem, or None: sizes and numbers of tiles are of 32 bits, groups of 16."""
    s = shape
    if max(*s[:9], *s.stride, *s.padding, *s.dilation) > MAX_INT32 // 2 or s.R * s.S > MAX_INT32 // 2:
        return "a size of 2^30"
    if s.groups > 65535:
        return "more than 65535 groups"
    smallest = 32
    pixels = s.N * max(s.P * s.Q, (s.H + s.stride[0]) * (s.W + s.stride[1])) + s.stride[0] * s.stride[1] * smallest
    if ceil_div(pixels, smallest) * ceil_div(max(s.C, s.K), smallest) > MAX_INT32:
        return "more than 2^31 tiles"
    return None
