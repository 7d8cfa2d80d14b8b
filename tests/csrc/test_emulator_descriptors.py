"""wgmma's descriptors of shared memory, and its registers, under the emulator."""

import ctypes
import re

import pytest
import torch
from emulated import load, run
from emulator import build

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))

SOURCE = "wgmma_layout_sm90"
BYTES = 16384
MODES = {"none": 0, 128: 1, 64: 2, 32: 3}


@pytest.fixture(scope="module")
def library():
    return load(SOURCE)


def _descriptor(width, start=0, leading=16, stride=0):
    return start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | MODES[width] << 62


def _read(library, mn_major, descriptor, threads=128, other=(-1, -1)):
    """What a descriptor finds in memory that holds its own offsets, in halves."""
    memory = torch.arange(BYTES // 2, dtype=torch.int32) % 2048  # exact in half
    c = torch.full((64, 16), torch.nan)
    run(library, "layout", mn_major, memory.half(), BYTES, ctypes.c_uint64(descriptor), c, threads, *other)
    return c


def _twice(offsets):
    return 2.0 * (torch.tensor(offsets) // 2 % 2048)


def _swizzled(row, piece, width):
    """Rows of 64 bytes change their pieces' places every other row."""
    return piece ^ (row % 8 if width == 128 else row // 2 % 4)


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("width, stride", [(64, 512), (64, 1536), (128, 1024), (128, 2048)])
def test_reduction_innermost(library, width, stride, step):
    """[groups of 8 rows, `stride` apart][8 rows][width]. A step of the reduction is 32 bytes of a row."""
    if step * 32 >= width:
        with pytest.raises(RuntimeError, match=f"is not a multiple of {8 * width}, but for a step"):
            _read(library, False, _descriptor(width, start=step * 32, stride=stride))
        return
    found = _read(library, False, _descriptor(width, start=step * 32, stride=stride))
    offsets = [
        [row // 8 * stride + row % 8 * width + _swizzled(row, step * 2 + k // 8, width) * 16 + k % 8 * 2
         for k in range(16)]
        for row in range(64)
    ]  # fmt: skip
    assert torch.equal(found, _twice(offsets))


@pytest.mark.parametrize("start", [0, 2048])
@pytest.mark.parametrize(
    "width, leading, stride", [(64, 4096, 512), (64, 1024, 2048), (128, 1024, 1024), (128, 16, 3072)]
)
def test_reduction_outermost(library, width, leading, stride, start):
    """[columns by `width` bytes, `leading` apart][groups of 8 steps, `stride` apart][8 steps][width]."""
    found = _read(library, True, _descriptor(width, start, leading, stride))
    of_row = width // 2
    offsets = [
        [start + row // of_row * leading + k // 8 * stride + k % 8 * width
         + _swizzled(k, row % of_row // 8, width) * 16 + row % 8 * 2 for k in range(16)]
        for row in range(64)
    ]  # fmt: skip
    assert torch.equal(found, _twice(offsets))


@pytest.mark.parametrize(
    "mn_major, descriptor, message",
    [
        (False, _descriptor("none", stride=128), "swizzle is none, which is not modelled"),
        (True, _descriptor(32, stride=256), "swizzle is of 32 bytes, which is not modelled"),
        (False, _descriptor(64, stride=512) | 1 << 49, "a base offset"),
        (False, _descriptor(64, stride=512) | 1 << 47, "bits of the descriptor are set that mean nothing"),
        (False, _descriptor(64, start=64, stride=512), "address 4160 is not a multiple of 512"),
        (False, _descriptor(64, start=48, stride=512), "address 4144 is not a multiple of 512"),
        (True, _descriptor(64, start=32, stride=512), "address 4128 is not a multiple of 512"),
        (True, _descriptor(128, start=512, stride=1024), "address 4608 is not a multiple of 1024"),
        (False, _descriptor(64, start=BYTES - 3584, stride=512), "16 bytes at 20480 are outside of the block's 20480"),
    ],
)
def test_refused(library, mn_major, descriptor, message):
    with pytest.raises(RuntimeError, match=f"layout_kernel.*wgmma.mma_async.*{message}"):
        _read(library, mn_major, descriptor)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"other": (2, 7)}, "lanes of the warp give different descriptors"),
        ({"other": (2, -1)}, r"warps \d and \d of a warpgroup give different descriptors"),
        ({"threads": 96}, "a warpgroup is 4 warps"),
        ({"threads": 120}, "not all 32 lanes of the warp take part|a warpgroup is 4 warps"),
    ],
)
def test_who_takes_part(library, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        _read(library, False, _descriptor(64, stride=512), **arguments)


_PRODUCT = re.compile(r"(wgmma\.mma_async[^{]*\{)(%\w+), (%\w+)(,[^;]*;)")


def _edited(variant, edit):
    return load(SOURCE, variant, edit_ptx=lambda _, ptx: edit(ptx)), _descriptor(64, stride=512)


def test_without_the_sum_before():
    zero, one = (f"setp.ne.b32 add, 1, {i}" for i in range(2))
    library, descriptor = _edited("_overwriting", lambda ptx: ptx.replace(zero, one))
    assert torch.equal(2 * _read(library, False, descriptor), _read(load(SOURCE), False, descriptor))


def _write_behind_each(ptx):
    return _PRODUCT.sub(r"\g<0> mov.f32 \2, 0f3F800000;", ptx)


def _commit_nothing(ptx):
    return ptx.replace("wgmma.commit_group.sync.aligned;", "")


def _swap_in_every_second(ptx):
    count = iter(range(100))
    return _PRODUCT.sub(lambda p: f"{p[1]}{p[3]}, {p[2]}{p[4]}" if next(count) % 2 else p[0], ptx)


@pytest.mark.parametrize(
    "variant, edit, message",
    [
        ("_writing", _write_behind_each, "a register of d was written while"),
        ("_swapping", _swap_in_every_second, "some registers of d are another's that is under way"),
        ("_uncommitted", _commit_nothing, "ends, but the product was not waited for"),
    ],
)
def test_registers(variant, edit, message):
    library, descriptor = _edited(variant, edit)
    with pytest.raises(RuntimeError, match=message):
        _read(library, False, descriptor)
