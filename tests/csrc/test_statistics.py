"""Statistics where E[x²] − E[x]² and other short cuts fail."""

import pytest
import torch
from operator_cases import FORMATS
from tolerance import assert_bit_equal, max_error

from resnet_fused import ops

EPS = torch.finfo(torch.float32).eps


def _statistics(x, layout):
    mean, m2 = ops.get("cpu").bn_statistics(x.contiguous(memory_format=FORMATS[layout]))
    return mean, m2


def _truth(x):
    x = x.double()
    mean = x.mean((0, 2, 3))
    return mean, (x - mean.view(1, -1, 1, 1)).square().sum((0, 2, 3))


@pytest.mark.parametrize("layout", FORMATS)
def test_large_mean_no_worse_than_eager(layout, isa):
    x = 1e4 + torch.randn(8, 19, 14, 14, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=FORMATS[layout])
    n = x.numel() // x.shape[1]
    mean, m2 = _statistics(x, layout)
    true_mean, true_m2 = _truth(x)
    _, eager_mean, eager_invstd = torch.native_batch_norm(x, None, None, None, None, True, 0.0, 0.0)
    eager_m2 = n / eager_invstd.double().square()
    # Twice eager's error, or that of rounding the result once where eager happens to be exact.
    assert max_error(mean, true_mean) <= max(2 * max_error(eager_mean, true_mean), EPS / 2 * 1e4)
    assert max_error(m2, true_m2) <= max(2 * max_error(eager_m2, true_m2), EPS * true_m2.max().item())


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("kind", ["sorted", "step", "outlier_first"])
def test_values_that_drift(kind, layout, isa):
    """Tiles unlike each other, and a first value (the first pivot) unlike all others."""
    x = torch.randn(4, 5, 32, 32, generator=torch.Generator().manual_seed(1))
    if kind == "sorted":
        x = x.permute(1, 0, 2, 3).reshape(5, -1).sort().values.view(5, 4, 32, 32).permute(1, 0, 2, 3)
    elif kind == "step":
        x[2:] += 1e3
    else:
        x[0, :, 0, 0] = 1e6
    (mean, m2), (true_mean, true_m2) = _statistics(x, layout), _truth(x)
    # Within a tile a float32 sum of 32 to 2048/lanes terms of one sign: at most 2048/4 = 512 roundings in the
    # portable kernels, of random sign: √512 ≈ 23.
    torch.testing.assert_close(m2.double(), true_m2, rtol=23 * EPS, atol=0)
    # A mean's error is the sum's: rounded terms are as large as the largest deviation from it, over n.
    spread = (x.double() - true_mean.view(1, -1, 1, 1)).abs().sum((0, 2, 3)).max().item() / x[:, 0].numel()
    torch.testing.assert_close(mean.double(), true_mean, rtol=EPS, atol=23 * EPS * spread)


@pytest.mark.parametrize("layout", FORMATS)
def test_nan_and_infinity_stay_in_their_channel(layout, isa):
    x = torch.randn(4, 20, 9, 9, generator=torch.Generator().manual_seed(2))
    clean_mean, clean_m2 = _statistics(x, layout)
    # First, in the middle and last: as first pivot, within a tile and in the ragged end.
    for n, c, h, w, value in [(0, 1, 0, 0, "nan"), (2, 3, 4, 4, "nan"), (3, 5, 8, 8, "nan"),
                              (0, 7, 0, 0, "inf"), (2, 17, 4, 4, "inf"), (3, 19, 8, 8, "-inf")]:  # fmt: skip
        x[n, c, h, w] = float(value)
    mean, m2 = _statistics(x, layout)
    assert mean[[1, 3, 5]].isnan().all() and m2[[1, 3, 5, 7, 17, 19]].isnan().all()
    assert mean[[7, 17, 19]].tolist() == [float("inf"), float("inf"), float("-inf")]
    others = [c for c in range(20) if c not in (1, 3, 5, 7, 17, 19)]
    assert_bit_equal(mean[others], clean_mean[others])
    assert_bit_equal(m2[others], clean_m2[others])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_merged_over_threads(threads, isa):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x = 100 + torch.randn(6, 40, 30, 30, generator=torch.Generator().manual_seed(3))
        for layout in FORMATS:
            (mean, m2), (true_mean, true_m2) = _statistics(x, layout), _truth(x)
            # One rounding of the mean; of M2 the √(5400 terms) · eps / 2 of the float32 tile sums at most.
            torch.testing.assert_close(mean.double(), true_mean, rtol=EPS, atol=0)
            torch.testing.assert_close(m2.double(), true_m2, rtol=37 * EPS, atol=0)
    finally:
        torch.set_num_threads(before)


def test_empty():
    assert_bit_equal(ops.get("cpu").bn_statistics(torch.empty(0, 3, 4, 4)), torch.zeros(2, 3))
    assert ops.get("cpu").bn_statistics(torch.empty(2, 0, 4, 4)).shape == (2, 0)
