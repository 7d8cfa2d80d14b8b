"""The emulator of CUDA kernels runs right ones right, and finds what is wrong with wrong ones."""

import ctypes
from pathlib import Path

import pytest
import torch
from emulator import build
from emulator.library import SCHEDULES, Emulated

KERNELS = Path(__file__).parent / "emulator_kernels"
NVCC_FLAGS = ["-lineinfo", "-fmad=false"]

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))


def _load(name) -> Emulated:
    return Emulated(build.library(f"test_{name}", [KERNELS / f"{name}.cu"], nvcc_flags=NVCC_FLAGS))


def _pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


@pytest.fixture(scope="session")
def elementwise():
    return _load("elementwise")


@pytest.fixture(params=[(name, seed) for name in SCHEDULES for seed in range(2)], ids=lambda p: f"{p[0]}{p[1]}")
def schedule(request):
    return request.param


@pytest.mark.parametrize("n", [1, 4, 511, 512, 1030])
def test_add(elementwise, schedule, n):
    elementwise.set_schedule(*schedule)
    a, b, total = torch.randn(n), torch.randn(n), torch.full((n,), torch.nan)
    assert elementwise.functions.launch_add(_pointer(a), _pointer(b), _pointer(total), n) == 0
    assert torch.equal(total, a + b)


@pytest.mark.parametrize("columns, threads", [(1, 32), (300, 64), (1000, 256)])
def test_row_sums(elementwise, schedule, columns, threads):
    elementwise.set_schedule(*schedule)
    x = torch.randint(-8, 9, (5, columns)).to(torch.bfloat16)
    sums = torch.full((5,), torch.nan)
    assert elementwise.functions.launch_row_sums(_pointer(x), _pointer(sums), 5, columns, threads) == 0
    assert torch.equal(sums, x.float().sum(1))  # exact: small integers


def test_last_block_finishes(elementwise, schedule):
    elementwise.set_schedule(*schedule)
    x, total, finished = torch.randint(-8, 9, (1000,)).float(), torch.zeros(1), torch.zeros(1, dtype=torch.int32)
    assert elementwise.functions.launch_total(_pointer(x), _pointer(total), _pointer(finished), 1000) == 0
    assert total.item() == 2 * x.sum().item() and finished.item() == 0  # exact: small integers


@pytest.fixture(scope="session")
def matmul():
    return _load("matmul")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=["f16", "bf16", "tf32"])
@pytest.mark.parametrize("m, n, k", [(32, 32, 32), (64, 32, 160)])
def test_matmul(matmul, schedule, dtype, m, n, k):
    matmul.set_schedule(*schedule)
    a, b = (torch.randint(-8, 9, (rows, k)).to(dtype) for rows in (m, n))
    c = torch.full((m, n), torch.nan)
    kind = [torch.float16, torch.bfloat16, torch.float32].index(dtype)
    status = matmul.functions.launch_matmul(kind, _pointer(a), _pointer(b), _pointer(c), m, n, k)
    assert (status, matmul.last_error()) == (0, None)
    assert torch.equal(c, a.float() @ b.float().T)  # exact: small integers
