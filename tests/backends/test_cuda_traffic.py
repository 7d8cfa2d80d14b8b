"""What the CUDA kernels ask of memory, counted by the emulator: the bytes of bn.h's formulas, in whole sectors."""

import cuda_emulated
import pytest
import torch
from operator_cases import FORMATS

from resnet_fused.backends import relu_mask

pytestmark = cuda_emulated.needs_emulator

SECTOR = 32  # bytes that memory moves at least
ACCUMULATOR, PARTIAL = 4, 8  # bytes of a per-channel constant and of a block's partial sum
SHAPES = [(2, 64, 28, 32), (3, 256, 14, 16)]
HALVES_AND_FLOAT = [torch.float16, torch.bfloat16, torch.float32]


class Traffic:
    """Tensors of one size, and the counts of an operator on them."""

    def __init__(self, shape, dtype, memory_format):
        self.channels, self.bytes = shape[1], torch.Size(shape).numel() * dtype.itemsize
        self.bits = torch.Size(shape).numel() // 8  # bytes of a mask
        # Addresses that no other tensor's sector shares: torch aligns to 64 bytes.
        self.tensor = lambda: torch.randn(shape).to(dtype).contiguous(memory_format=memory_format)
        self.affine = lambda: torch.rand(4, self.channels)
        self.rows = self.channels * ACCUMULATOR  # of one row of constants

    def count(self, call):
        emulated = cuda_emulated.load()
        with emulated.counting() as read:
            call(torch.ops.resnet_fused_emulated)
            return {kernel["name"].split("::")[2].split("<")[0]: kernel for kernel in read().values()}


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


def _moved(kernel):
    return kernel["bytes_read"], kernel["bytes_written"]


def _whole_sectors(kernel):
    return kernel["stores"]["sectors"] == kernel["stores"]["sectors_needed"]


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", HALVES_AND_FLOAT, ids=str)
@pytest.mark.parametrize("residual", ["none", "plain", "affine"])
def test_apply(residual, dtype, layout, shape):
    t = Traffic(shape, dtype, FORMATS[layout])
    other = None if residual == "none" else t.tensor()
    affine2 = t.affine() if residual == "affine" else None
    kernel = t.count(lambda ops: ops.bn_apply(t.tensor(), t.affine(), True, other, affine2))["bn_apply_kernel"]
    constants = 3 * t.rows * (1 + (affine2 is not None))
    assert _moved(kernel) == (t.bytes * (1 + (other is not None)) + constants, t.bytes)
    assert _whole_sectors(kernel)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", HALVES_AND_FLOAT, ids=str)
@pytest.mark.parametrize("residual", ["plain", "affine"])
def test_apply_mask(residual, dtype, layout, shape):
    t = Traffic(shape, dtype, FORMATS[layout])
    affine2 = t.affine() if residual == "affine" else None
    kernel = t.count(lambda ops: ops.bn_apply_mask(t.tensor(), t.affine(), t.tensor(), affine2))["bn_apply_kernel"]
    constants = 3 * t.rows * (1 + (affine2 is not None))
    assert _moved(kernel) == (2 * t.bytes + constants, t.bytes + t.bits)
    # Contiguous, a plane's part of the mask begins anywhere in a sector.
    assert _whole_sectors(kernel) or layout == "nchw"


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", HALVES_AND_FLOAT, ids=str)
def test_statistics(dtype, layout, shape):
    t = Traffic(shape, dtype, FORMATS[layout])
    kernels = t.count(lambda ops: ops.bn_statistics(t.tensor()))
    first, second = kernels["bn_statistics_kernel"], kernels["merge_statistics_kernel"]
    partial = first["bytes_written"]
    assert _moved(first) == (t.bytes, partial) and partial % (2 * t.channels * PARTIAL) == 0
    assert _moved(second) == (partial, 2 * t.rows)
    assert partial <= t.bytes / 4  # of tensors as small as these; they have the same few blocks, and larger ones
    assert _whole_sectors(first) and first["shared"]["bank_conflicts"] == 0


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", HALVES_AND_FLOAT, ids=str)
@pytest.mark.parametrize("inputs", [0, 1, 2])
@pytest.mark.parametrize("mask", [True, False])
def test_backward_reduce(mask, inputs, dtype, layout, shape):
    t = Traffic(shape, dtype, FORMATS[layout])
    pairs = [t.tensor() if i % 2 == 0 else t.affine() for i in range(2 * inputs)] + [None] * (4 - 2 * inputs)
    out = t.tensor() if mask else None
    kernels = t.count(lambda ops: ops.bn_backward_reduce(t.tensor(), out, *pairs[:2], mask, *pairs[2:]))
    kernel = kernels["bn_backward_reduce_kernel"]
    constants = t.rows * (0, 3, 4)[inputs]
    assert kernel["bytes_read"] == t.bytes * (1 + mask + inputs) + constants
    assert kernel["bytes_written"] % ((1 + inputs) * t.channels * PARTIAL) == 0
    assert _whole_sectors(kernel) and kernel["shared"]["bank_conflicts"] == 0


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", HALVES_AND_FLOAT, ids=str)
@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("bits", [False, True])
def test_backward_mask_reduce(bits, inputs, dtype, layout, shape):
    t = Traffic(shape, dtype, FORMATS[layout])
    pairs = [t.tensor() if i % 2 == 0 else t.affine() for i in range(2 * inputs)]
    mask = relu_mask.pack(t.tensor()) if bits else None
    kernels = t.count(lambda ops: ops.bn_backward_mask_reduce(t.tensor(), t.tensor(), *pairs, mask=mask))
    kernel = kernels["bn_backward_reduce_kernel"]
    mask_bytes = t.bits if bits else t.bytes
    assert kernel["bytes_read"] == t.bytes * (1 + inputs) + mask_bytes + t.rows * (0, 3, 4)[inputs]
    assert (kernel["bytes_written"] - t.bytes) % ((1 + inputs) * t.channels * PARTIAL) == 0
    assert kernel["bytes_written"] - t.bytes <= t.bytes / 2  # partial sums, as of a reduction alone
    assert _whole_sectors(kernel)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", HALVES_AND_FLOAT, ids=str)
@pytest.mark.parametrize("mask", ["none", "z", "out"])
def test_backward_apply(mask, dtype, layout, shape):
    t = Traffic(shape, dtype, FORMATS[layout])
    out = t.tensor() if mask == "out" else None
    means = torch.rand(2, t.channels)
    kernel = t.count(
        lambda ops: ops.bn_backward_apply(t.tensor(), out, t.tensor(), t.affine(), mask != "none", means)
    )["bn_backward_apply_kernel"]
    assert _moved(kernel) == (t.bytes * (2 + (mask == "out")) + 6 * t.rows, t.bytes)
    assert _whole_sectors(kernel)


@pytest.mark.parametrize("dtype", HALVES_AND_FLOAT, ids=str)
def test_pool(dtype, shape):
    t = Traffic(shape, dtype, torch.channels_last)
    kernel = t.count(lambda ops: ops.stem_pool(t.tensor(), t.affine()))["stem_pool_kernel"]
    pooled = t.bytes // 4
    assert _moved(kernel) == (t.bytes + 3 * t.rows, pooled + pooled // dtype.itemsize)  # y, and a byte of index
    assert _whole_sectors(kernel)


@pytest.mark.parametrize("dtype", HALVES_AND_FLOAT, ids=str)
def test_activations_are_read_in_whole_sectors(dtype):
    """Channels last, a thread's constants are two accesses of half a sector each; apart from them nothing is in part."""
    t = Traffic((4, 8 if dtype.itemsize == 2 else 4, 64, 64), dtype, torch.channels_last)
    kernel = t.count(lambda ops: ops.bn_backward_reduce(t.tensor(), t.tensor(), t.tensor(), t.affine(), True))
    loads = kernel["bn_backward_reduce_kernel"]["loads"]
    assert loads["sectors_needed"] >= 0.95 * loads["sectors"]
