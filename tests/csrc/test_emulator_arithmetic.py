"""Every conversion and operation that kernels of ours may use, in the emulator against torch and NumPy."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from emulated import load, run
from emulator import build

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))
EVERY_16_BITS = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
NARROW = {"half": torch.float16, "bfloat": torch.bfloat16}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def arithmetic():
    return load("arithmetic")


def _map(arithmetic, launcher, x, shape, dtype, per_item=1):
    out = torch.full(shape, 85, dtype=dtype)
    run(arithmetic, launcher, x, out, x.numel() // per_item)
    return out


def _float_bits(count):
    """Floats of all exponents, and the ones next to ties of the narrower formats."""
    random = torch.randint(-(2**31), 2**31, (count,), dtype=torch.int64).to(torch.int32)
    ties = (random & ~0xFFFF) | 0x8000
    half_ties = (random & ~0x1FFF & ~0x70000000) | 0x1000 | 0x30000000
    special = torch.tensor([0, 1, 0x7F800000, 0x7FC00000, 0x7F7FFFFF, 0x7F800001, 0x477FEFFF, 0x477FF000, 0x33000000,
                            0x33000001, 0x387FFFFF]).to(torch.int32)  # fmt: skip
    near_ties = [ties, ties + 1, ties - 1, half_ties, half_ties + 1, half_ties - 1]
    every = torch.cat([random, *near_ties, special, special ^ -(2**31)])
    return every[: every.numel() // 2 * 2].view(torch.float32)


def _equal(a, b):
    """Bit for bit, NaN for NaN."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    both_nan = a.isnan() & b.isnan()
    return bool(((a.view(integers) == b.view(integers)) | both_nan).all())


@pytest.mark.parametrize("name", NARROW)
def test_from_all_narrow_numbers(arithmetic, name):
    x = EVERY_16_BITS.view(NARROW[name])
    assert _equal(_map(arithmetic, f"{name}_to_float", x, x.shape, torch.float32), x.float())


@pytest.mark.parametrize("name", NARROW)
def test_to_narrow_numbers(arithmetic, name):
    narrow = EVERY_16_BITS.view(NARROW[name]).float()
    x = torch.cat([narrow, _float_bits(20000)])
    expected = x.to(NARROW[name])
    assert _equal(_map(arithmetic, f"float_to_{name}", x, x.shape, NARROW[name]), expected)
    assert _equal(_map(arithmetic, f"float_to_{name}_pair", x, x.shape, NARROW[name], per_item=2), expected)


def _sqrt(x):
    """Correctly rounded, as torch's is not everywhere."""
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.sqrt(x.numpy()))


def _is_nearest(result, exact):
    """Whether no number of the same type is nearer to the fraction, and a tie went to even."""
    bits = result.view(torch.int16).item()
    error = abs(Fraction(result.item()) - exact)
    for neighbour in (bits - 1, bits + 1):
        other = torch.tensor(neighbour, dtype=torch.int16).view(result.dtype)
        if bits & 0x7FFF == 0 or not other.isfinite():
            continue
        other_error = abs(Fraction(other.item()) - exact)
        if other_error < error or (other_error == error and bits & 1):
            return False
    return True


@pytest.mark.parametrize("name", NARROW)
def test_narrow_fma_is_rounded_once(arithmetic, name):
    """Rounded to double first, some of the bf16 results would be off: a tie that a far smaller term decides."""
    x = torch.randint(-(2**15), 2**15, (6000, 3), dtype=torch.int32).to(torch.int16)
    x[:, :2] &= ~0x7  # ties are then common
    x = x.view(NARROW[name])
    out = _map(arithmetic, f"{name}_fma", x, (6000,), NARROW[name], per_item=3)
    clear = x.isfinite().all(1) & out.isfinite()
    assert clear.sum() > 2000
    for result, (a, b, c) in zip(out[clear], x[clear].tolist()):
        assert _is_nearest(result, Fraction(a) * Fraction(b) + Fraction(c)), (a, b, c, result)
    wide = x.double()
    approximate = (wide[:, 0] * wide[:, 1] + wide[:, 2])[~clear]
    assert torch.equal(out[~clear].isnan(), approximate.isnan())
    assert bool(((approximate.abs() >= torch.finfo(NARROW[name]).max) | approximate.isnan()).all())


def test_float_operations(arithmetic):
    x = torch.cat([torch.randn(2000, 2), _float_bits(2000).view(-1, 2)])
    out = _map(arithmetic, "float_operations", x, (x.shape[0], 4), torch.float32, per_item=2)
    a, b = x.T
    assert _equal(out[:, 0], a / b)
    assert _equal(out[:, 1], _sqrt(a))
    assert _equal(out[:, 2], (a.double() * b.double() + 1).float())
    assert _equal(out[:, 3], torch.where(b.isnan() | (a > b), a, b).where(~a.isnan(), b))


def test_directed_roundings(arithmetic):
    x = torch.cat([torch.randn(2000, 2), torch.randn(2000, 2) * torch.tensor([1.0, 1e-9])])
    out = _map(arithmetic, "float_roundings", x, (x.shape[0], 4), torch.float32, per_item=2)
    exact = x.double().sum(1)
    nearest = exact.float()
    above = torch.where(nearest.double() < exact, torch.nextafter(nearest, torch.tensor(torch.inf)), nearest)
    below = torch.where(nearest.double() > exact, torch.nextafter(nearest, torch.tensor(-torch.inf)), nearest)
    assert torch.equal(out[:, 0], torch.where(exact > 0, below, above))
    assert torch.equal(out[:, 1], above) and torch.equal(out[:, 2], below)
    assert _equal(out[:, 3], (1 / x[:, 0].double().sqrt()).float())


def test_double_operations(arithmetic):
    x = torch.randn(2000, 2, dtype=torch.float64)
    out = _map(arithmetic, "double_operations", x, (2000, 4), torch.float64, per_item=2)
    a, b = x.T
    assert _equal(out[:, 0], a / b) and _equal(out[:, 1], _sqrt(a)) and _equal(out[:, 3], torch.minimum(a, b))
    wide = a.numpy().astype(np.longdouble) * b.numpy() + 1
    assert np.allclose(out[:, 2].numpy(), wide.astype(np.float64), rtol=2**-52, atol=2**-63)


def test_exponentials(arithmetic):
    x = torch.cat([torch.randn(3000) * 20, torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan])])
    out = _map(arithmetic, "exponentials", x, (x.numel(), 4), torch.float32).double()
    wide = x.double()
    expected = torch.stack([wide.exp(), wide.exp(), torch.exp2(wide), wide.abs().log2()], 1).float().double()
    exact = [0, 2, 3]
    # oracle: CUDA's documented 2 ulp; __expf rounds x log2(e), so its error grows with x
    assert torch.allclose(out[:, exact], expected[:, exact], rtol=2**-21, atol=1e-37, equal_nan=True)
    assert torch.allclose(out[:, 1], expected[:, 1], rtol=1e-5, atol=1e-37, equal_nan=True)


def test_integer_operations(arithmetic):
    x = torch.cat([torch.randint(-(2**31), 2**31, (2000, 2)), torch.randint(-9, 10, (500, 2)),
                   torch.tensor([[-(2**31), -1], [0, 0]])]).to(torch.int32)  # fmt: skip
    out = _map(arithmetic, "int_operations", x, (x.shape[0], 4), torch.int32, per_item=2)
    for (a, b), row in zip(x.tolist(), out.tolist()):
        quotient = (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1) if b else 0
        ffs = (a & -a).bit_length()
        counts = 32 - (a % 2**32).bit_length() + 100 * bin(b % 2**32).count("1") + 10000 * ffs
        expected = [a * b >> 32, quotient, counts, min(a, b) ^ abs(b)]
        assert [e % 2**32 for e in expected] == [e % 2**32 for e in row]


def test_long_operations(arithmetic):
    x = torch.randint(-(2**63), 2**63 - 1, (1000, 2)) >> torch.randint(0, 60, (1000, 2))
    out = _map(arithmetic, "long_operations", x, (1000, 4), torch.int64, per_item=2)
    for (a, b), row in zip(x.tolist(), out.tolist()):
        quotient = (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1) if b else 0
        expected = [a * b, a * b >> 64, quotient, a - quotient * b if b else 0]
        assert [e % 2**64 for e in expected] == [e % 2**64 for e in row]


def test_byte_operations(arithmetic):
    x = torch.randint(-(2**31), 2**31, (1000, 2)).to(torch.int32)
    out = _map(arithmetic, "byte_operations", x, (1000, 4), torch.int32, per_item=2)
    for (a, b), row in zip((x.long() % 2**32).tolist(), out.tolist()):
        both = (b << 32 | a).to_bytes(8, "little")
        picked = int.from_bytes(bytes(both[choice] for choice in (2, 7, 1, 5)), "little")
        funnel = ((b << 32 | a) << b % 32) >> 32
        expected = [picked, funnel, int(f"{a:032b}"[::-1], 2), (a & b) | (~a & b >> 3)]
        assert [e % 2**32 for e in expected] == [e % 2**32 for e in row]


def test_float_to_int(arithmetic):
    special = torch.tensor([0.5, 1.5, 2.5, -0.5, torch.nan, torch.inf])
    x = torch.cat([torch.randn(500) * 10, torch.randn(500) * 1e10, special])
    out = _map(arithmetic, "float_to_int", x, (x.numel(), 4), torch.int32)
    for value, row in zip(x.double().tolist(), out.tolist()):
        clamp = lambda v, low, high: 0 if np.isnan(v) else int(min(max(v, low), high))  # noqa: E731
        signed = [clamp(f(value), -(2**31), 2**31 - 1) for f in (np.trunc, np.rint, np.ceil)]
        assert [e % 2**32 for e in [*signed, clamp(np.trunc(value), 0, 2**32 - 1)]] == [e % 2**32 for e in row]


def test_local_memory(arithmetic):
    x = torch.randint(0, 100, (300,), dtype=torch.int32)
    out = _map(arithmetic, "local_array", x, x.shape, torch.int32)
    places = {(j * 5 + x[0].item()) & 15: j for j in range(16)}
    assert out.tolist() == [places[v & 15] + i for i, v in enumerate(x.tolist())]


def test_branches_by_index(arithmetic):
    x = torch.randint(-1000, 1000, (300,), dtype=torch.int32)
    out = _map(arithmetic, "choose", x, x.shape, torch.int32)
    cases = [lambda v: v * 3, lambda v: v ^ 77, lambda v: v - 1000, lambda v: -v, lambda v: int(v / 3),
             lambda v: v | 0x700, lambda v: v << 3, lambda v: 5]  # fmt: skip
    assert out.tolist() == [cases[v & 7](v) for v in x.tolist()]
