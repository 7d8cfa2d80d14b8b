"""Torch's tensors under the emulator: memory around them that kernels must not touch, and what is counted of them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from emulated import KERNELS, NVCC_FLAGS, load, run
from emulator import build

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# In a process of its own: the allocator stays.
GUARDED = """
import ctypes, sys
sys.path[:0] = sys.argv[2:]
import torch
from emulated import run
from emulator.library import Emulated
if {pool}:
    import resnet_fused
    from resnet_fused import _cpu
before = torch.ones(100)
library = Emulated(sys.argv[1])
x, out = torch.randn(1000), torch.zeros(1)
run(library, "read", x, out, 999)
assert out == x[999] and library.check_canaries() is None
for index in (-1, 1000, -64, 1063):
    try:
        run(library, "read", x, out, index)
        raise SystemExit("not found")
    except RuntimeError as error:
        assert "an allocation of 4000 bytes" in str(error), error
ctypes.memset(x.data_ptr() + 4000, 0, 1)
assert library.check_canaries() == "byte 0 after a tensor of 4000 bytes was written"
ctypes.memset(x.data_ptr() + 4000, 255, 1)
ctypes.memset(x.data_ptr() - 3, 1, 1)
del x
assert library.check_canaries() == "3 bytes before a tensor of 4000 bytes were written"
assert library.check_canaries() is None
del before
sizes = [torch.randn(n).sum() for n in range(0, 300, 7)]
big = torch.randn(2**20)
assert big[2:].clone().sum().isfinite() and library.check_canaries() is None
print("fine")
"""


@pytest.mark.slow
@pytest.mark.parametrize("pool", [False, True])
def test_redzones_around_tensors(pool):
    cxx_flags, link_flags = build.torch_flags()
    library = build.library("test_guarded", [KERNELS / "wrong.cu"], [build.TORCH_ALLOCATOR], nvcc_flags=NVCC_FLAGS,
                            cxx_flags=cxx_flags, link_flags=link_flags)  # fmt: skip
    here = Path(__file__).parent
    command = [sys.executable, "-c", GUARDED.format(pool=pool), library, here, here.parent, build.ROOT]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.stdout == "fine\n", child.stdout + child.stderr


@pytest.fixture(scope="module")
def elementwise():
    return load("elementwise")


def _counted(library, launcher, *arguments):
    with library.counting() as counts:
        run(library, launcher, *arguments)
        ((name, kernel),) = counts().items()
    assert launcher in name and launcher in kernel["name"]
    return kernel


@pytest.mark.parametrize("n", [1024, 1030])
def test_bytes_of_a_stream(elementwise, n):
    """16 bytes a lane fill sectors completely, but for the last ones."""
    a, b, total = torch.randn(n), torch.randn(n), torch.empty(n)
    k = _counted(elementwise, "add", a, b, total, n)
    sectors = -(-n * 4 // 32)
    assert (k["bytes_read"], k["bytes_written"]) == (2 * sectors * 32, sectors * 32)
    assert (k["launches"], k["blocks"], k["barriers"]) == (1, -(-n // 512), 0)
    if n == 1024:
        assert k["loads"] == {"requests": 16, "sectors": 256, "sectors_needed": 256}
        assert k["stores"] == {"requests": 8, "sectors": 128, "sectors_needed": 128}


@pytest.mark.parametrize("stride, sectors, wavefronts", [(1, 4, 1), (2, 8, 2), (8, 32, 8), (33, 32, 1), (32, 32, 32)])
def test_strides(elementwise, stride, sectors, wavefronts):
    x, out = torch.randn(32 * stride), torch.empty(32)
    k = _counted(elementwise, "strided", x, out, stride)
    assert torch.equal(out, x[::stride])
    assert k["loads"] == {"requests": 1, "sectors": sectors, "sectors_needed": 4}
    assert k["stores"] == {"requests": 1, "sectors": 4, "sectors_needed": 4}
    assert k["shared"] == {"requests": 2, "wavefronts": 2 * wavefronts, "bank_conflicts": 2 * (wavefronts - 1)}
    assert k["barriers"] == 1


def test_tiles_of_a_product():
    """a and b are read once by each block. The pitch of the tiles, 80 bytes, keeps ldmatrix free of bank conflicts; a
    quarter of a warp writes parts of two rows, with one conflict."""
    a, b, c = torch.randn(64, 160).half(), torch.randn(32, 160).half(), torch.empty(64, 32)
    k = _counted(load("matmul"), "matmul", 0, a, b, c, 64, 32, 160)
    assert k["bytes_read"] == (64 + 32) * 160 * 2 and k["bytes_written"] == 64 * 32 * 4
    assert k["loads"]["sectors"] == k["loads"]["sectors_needed"] == 2 * 64 * 160 * 2 // 32
    blocks, stages, copies, matrices = 2, 6, 2 * 32 * 64 // 16, 5 * 2 * 2 * 4
    assert k["shared"]["bank_conflicts"] == blocks * stages * copies // 8
    assert k["shared"]["requests"] == blocks * (stages * copies // 32 + matrices)
    assert k["barriers"] == 2 * 2 * 5
