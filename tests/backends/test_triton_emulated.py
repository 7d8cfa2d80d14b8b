"""The Triton operators, their kernels' sm_80 PTX run by the emulator, against the reference: exact, oracle, and what
they write. Each kernel is compiled for each mode, dtype and kind of shape: most of these tests' time.
"""

import pytest
import torch
import triton_emulated
from checks import check_integers, check_memory_format, check_oracle, check_what_is_written
from operator_cases import DTYPES, FORMATS, make_case
from triton_cases import EXACT, KERNELS, ODD, VECTORS
from triton_emulated import EMULATOR, OPERATORS

from resnet_fused.backends import relu_mask
from resnet_fused.backends.triton import sweep
from resnet_fused.backends.triton.bn_apply import bn_apply_kernel

pytestmark = triton_emulated.needs_emulator

# What differs between dtypes is loads, stores and conversions: some modes have all of them.
SOME = ["statistics", "finalize", "apply_residual_affine", "mask_reduce_two", "pool", "pool_apply",
        "backward_apply_relu"]  # fmt: skip
# The interpreter has them every day: their code is part of another mode's.
LEFT_OUT = ["finalize_plain", "apply", "apply_residual", "reduce", "reduce_two", "mask_reduce", "reduce_frozen_linear",
            "pool_reduce_frozen", "pool_apply_frozen", "backward_apply"]  # fmt: skip
SLOW = pytest.mark.slow
CASES = [
    *[pytest.param(mode, VECTORS, "float16", "nhwc", marks=SLOW if mode in LEFT_OUT else ()) for mode in KERNELS],
    *[pytest.param(mode, ODD, "float32", "nchw", marks=SLOW) for mode in KERNELS],
    *[pytest.param(mode, VECTORS, "bfloat16", "nhwc", marks=SLOW) for mode in SOME],
    *[pytest.param(mode, ODD, "float64", "nhwc", marks=SLOW) for mode in SOME],
]


@pytest.fixture(autouse=True)
def _schedule():
    EMULATOR.set_schedule("random", 0)


@pytest.mark.parametrize("mode, problem, dtype, layout", CASES)
def test_kernels(mode, problem, dtype, layout):
    check_oracle(make_case(mode, problem, DTYPES[dtype], FORMATS[layout]), OPERATORS)
    if mode in EXACT and dtype != "float64":
        case = make_case(mode, problem, DTYPES[dtype], FORMATS[layout], integer=True)
        check_integers(case, OPERATORS, DTYPES[dtype], rounds_between=False)


@pytest.mark.parametrize("schedule", ["random", "latest"])
@pytest.mark.parametrize("mode", ["statistics", "mask_reduce_two", "pool_reduce", "pool_apply"])
def test_what_is_written(mode, schedule, poison):
    EMULATOR.set_schedule(schedule, 1)
    case = make_case(mode, VECTORS, torch.float16, torch.channels_last)
    check_what_is_written(case, OPERATORS)
    check_memory_format(case, OPERATORS)


@pytest.mark.parametrize("mode", ["statistics", "mask_reduce_two", "apply_residual_affine", "pool_reduce"])
def test_several_tiles_of_a_program(mode, monkeypatch):
    """In tensors too large for the emulator there are more tiles than programs."""
    monkeypatch.setattr(sweep, "ENOUGH_PROGRAMS", 2)
    check_oracle(make_case(mode, VECTORS, torch.float16, torch.channels_last), OPERATORS)


def _half(rows=None):
    size = (VECTORS.N, VECTORS.C, VECTORS.H, VECTORS.W)
    if rows:
        return torch.rand(rows, VECTORS.C)
    return torch.randn(size).half().contiguous(memory_format=torch.channels_last)


def _counts(call) -> dict:
    """By the kernel's name, bytes in whole sectors that it read and wrote."""
    call()  # so that its kernels are loaded
    with EMULATOR.library.counting() as read:
        call()
        return {counts["name"].rpartition("_")[0]: (counts["bytes_read"], counts["bytes_written"])
                for counts in read().values()}  # fmt: skip


def test_each_byte_is_moved_once():
    """Channels last in float16: tensors, rows of constants (acc) and partial sums (float64)."""
    x, affine = _half(), _half(4)
    tensor, row = x.numel() * 2, VECTORS.C * 4
    moved = _counts(lambda: OPERATORS.bn_apply(x, affine, True, _half(), _half(4)))
    assert moved == {"bn_apply_kernel": (2 * tensor + 2 * 3 * row, tensor)}
    moved = _counts(lambda: OPERATORS.bn_backward_mask_reduce(_half(), _half(), x, affine, _half(), _half(4)))
    partial = sweep.sweep_of(x).chunks * 3 * VECTORS.C * 8
    assert moved["bn_backward_reduce_kernel"] == (4 * tensor + 2 * row, tensor + partial)
    assert moved["merge_sums_kernel"] == (partial + 2 * row, 3 * row)
    bits = x.numel() // 8
    moved = _counts(lambda: OPERATORS.bn_apply_mask(x, affine, _half(), _half(4)))
    assert moved == {"bn_apply_kernel": (2 * tensor + 2 * 3 * row, tensor + bits)}
    mask = relu_mask.pack(_half())
    moved = _counts(
        lambda: OPERATORS.bn_backward_mask_reduce(_half(), _half(), x, affine, _half(), _half(4), mask)
    )
    assert moved["bn_backward_reduce_kernel"] == (3 * tensor + bits + 2 * row, tensor + partial)


def test_what_is_out_of_bounds_is_found():
    x, affine = _half(), _half(4)
    plan = sweep.sweep_of(x)
    too_small = torch.empty(x.numel() - 8, dtype=x.dtype)
    arguments = (x, affine, None, None, too_small, None, plan.view)
    options = {"enable_fp_fusion": False, "RELU": True, "OF_CHANNELS": True, **plan.blocks}
    with pytest.raises(RuntimeError, match=r"bn_apply_kernel_\w+, block .*bn_apply.py"):
        EMULATOR.run(bn_apply_kernel, plan.grid, arguments, options)


@pytest.mark.slow
@pytest.mark.parametrize("far", ["image_stride", "channel_stride", "pixel_stride"])
def test_offsets_are_64_bits_wide(far):
    """Two images, channels or pixels that are 2^31 elements apart; what is between them is never touched."""
    counts = {"images": 2, "channels": 2, "pixels": 2}
    strides = {"image_stride": 4, "channel_stride": 2, "pixel_stride": 1} | {far: 2**31}
    x, y = (torch.empty(2**31 + 8, dtype=torch.float16) for _ in range(2))
    offsets = [n * strides["image_stride"] + c * strides["channel_stride"] + p * strides["pixel_stride"]
               for n in range(2) for c in range(2) for p in range(2)]  # fmt: skip
    x[offsets], y[offsets] = torch.arange(8).half(), torch.nan
    affine = torch.tensor([[0.0], [2.0], [1.0], [1.0]]).expand(4, 2).contiguous()
    view = sweep.View(**counts, **strides, tile_pixels=16)
    options = {"enable_fp_fusion": False, "RELU": False, "OF_CHANNELS": False, "BLOCK_P": 64, "BLOCK_C": 16,
               "num_warps": sweep.WARPS}  # fmt: skip
    EMULATOR.run(bn_apply_kernel, (2, 1), (x, affine, None, None, y, None, view), options)
    assert y[offsets].tolist() == [2 * value + 1 for value in range(8)]
