"""The emulator of CUDA kernels runs right kernels right: copies, reductions, tensor cores, collectives, atomics."""

import pytest
import torch
from emulated import load, run
from emulator import build
from emulator.library import SCHEDULES

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))
LIBRARIES = ["elementwise", "matmul", "warps"]
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def libraries():
    return {name: load(name) for name in LIBRARIES}


@pytest.fixture(params=[(name, seed) for name in SCHEDULES for seed in range(2)], ids=lambda p: f"{p[0]}{p[1]}")
def emulated(libraries, request):
    """The libraries, each with a schedule set."""
    for library in libraries.values():
        library.set_schedule(*request.param)
    return libraries


def _integers(*shape, low=-8, high=9):
    return torch.randint(low, high, shape, dtype=torch.int32)


@pytest.mark.parametrize("n", [1, 4, 511, 512, 1030])
def test_add(emulated, n):
    a, b, total = torch.randn(n), torch.randn(n), torch.full((n,), torch.nan)
    run(emulated["elementwise"], "add", a, b, total, n)
    assert torch.equal(total, a + b)


@pytest.mark.parametrize("columns, threads", [(1, 32), (300, 64), (1000, 256)])
def test_row_sums(emulated, columns, threads):
    x, sums = _integers(5, columns).to(torch.bfloat16), torch.full((5,), torch.nan)
    run(emulated["elementwise"], "row_sums", x, sums, 5, columns, threads)
    assert torch.equal(sums, x.float().sum(1))  # exact: small integers


def test_last_block_finishes(emulated):
    x, total, finished = _integers(1000).float(), torch.zeros(1), torch.zeros(1, dtype=torch.int32)
    run(emulated["elementwise"], "total", x, total, finished, 1000)
    assert total.item() == 2 * x.sum().item() and finished.item() == 0  # exact: small integers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m, n, k", [(32, 32, 32), (64, 32, 160)])
def test_matmul(emulated, dtype, m, n, k):
    a, b = (_integers(rows, k).to(DTYPES[dtype]) for rows in (m, n))
    c = torch.full((m, n), torch.nan)
    run(emulated["matmul"], "matmul", list(DTYPES).index(dtype), a, b, c, m, n, k)
    assert torch.equal(c, a.float() @ b.float().T)  # exact: small integers


def test_tf32_operands_are_cut_to_ten_bits(libraries):
    a, b, c = torch.randn(32, 32), torch.randn(32, 32), torch.empty(32, 32)
    run(libraries["matmul"], "matmul", 2, a, b, c, 32, 32, 32)
    cut_a, cut_b = ((x.view(torch.int32) & ~0x1FFF).view(torch.float32).double() for x in (a, b))
    # oracle: sums of 8 products, four of them one after another, each rounded to float
    assert torch.allclose(c.double(), cut_a @ cut_b.T, rtol=0, atol=4 * 2**-24 * 64)
    assert not torch.allclose(c.double(), a.double() @ b.double().T, rtol=0, atol=4 * 2**-24 * 64)


def test_votes(emulated):
    x = _integers(64, low=0, high=8)
    out = torch.full((64, 8), -1, dtype=torch.int32)
    run(emulated["warps"], "votes", x, out)
    for warp in (0, 32):
        values = x[warp : warp + 32].tolist()
        bits = lambda test: sum(1 << i for i, v in enumerate(values) if test(i, v))  # noqa: E731
        for i, v in enumerate(values):
            within = (lambda lane: lane < 8) if i < 8 else (lambda lane: lane >= 8)
            expected = [bits(lambda _, w: w & 1), 3 in values, 1, bits(lambda _, w: w == v), sum(values), max(values),
                        0xFFFFFFFF + 1, bits(lambda lane, w: within(lane) and w & (2 if i < 8 else 4))]  # fmt: skip
            assert [e % 2**32 for e in expected] == [e % 2**32 for e in out[warp + i].tolist()]


def test_shuffles(emulated):
    x, out = _integers(64), torch.full((64, 5), 99, dtype=torch.int32)
    run(emulated["warps"], "shuffles", x, out)
    for thread in range(64):
        warp, lane = thread // 32 * 32, thread % 32
        sources = [5, lane if lane < 3 else lane - 3, lane + 2 if lane % 8 < 6 else lane, lane ^ 9,
                   lane // 16 * 16 + (lane + 1) % 16]  # fmt: skip
        assert out[thread].tolist() == [x[warp + source].item() for source in sources]


def test_barriers_that_reduce(emulated):
    x, out = _integers(96, low=0), torch.full((96,), -1, dtype=torch.int32)
    run(emulated["warps"], "counts", x, out)
    count = int((x & 1).sum())
    assert out.tolist() == [count * 4 + 2 + bool((x == 7).any())] * 96


def test_barriers_of_some_warps(emulated):
    x, out = _integers(64), torch.full((64,), -1, dtype=torch.int32)
    run(emulated["warps"], "pairs", x, out)
    assert torch.equal(out, x.view(32, 2).flip(1).flatten())


def test_a_lane_that_waits_for_another(emulated):
    x, out = _integers(1), torch.full((1,), -1, dtype=torch.int32)
    run(emulated["warps"], "flag", x, out)
    assert torch.equal(out, x)


def test_barriers_of_a_warp(emulated):
    x, out = _integers(256), torch.full((128,), -1, dtype=torch.int32)
    run(emulated["warps"], "syncwarp", x, out)
    assert torch.equal(out, x.view(2, 4, 32).sum((0, 2)).repeat_interleave(32).int())


def test_atomics(emulated):
    x, out, sums = _integers(256), torch.zeros(3, dtype=torch.int32), torch.zeros(4)
    run(emulated["warps"], "atomics", x, out, sums)
    bits = 0
    for value in x.tolist():
        bits |= 1 << (value & 31)
    assert [v % 2**32 for v in out.tolist()] == [x.sum().item() % 2**32, x.max().item() % 2**32, bits]
    assert sums[0].item() == sums[2:].view(torch.float64).item() == x.sum().item()  # exact: small integers
