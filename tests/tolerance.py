"""How results are compared. Exact where arithmetic is exact; else against float64, by the error eager makes itself."""

import math

import torch


def assert_bit_equal(ours, theirs):
    """Equal in dtype, shape and every bit but the sign of zero."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def max_error(value, truth):
    return (value.detach().double() - truth.double()).abs().max().item() if truth.numel() else 0.0


def assert_oracle(ours, theirs, truth, length, name=""):
    """max|ours − truth| <= 2·max|theirs − truth| + atol, theirs being the reference's result in the same dtype.

    atol = 4·√length·eps·max|truth|: rounding errors of a sum of `length` terms grow as its square root; 4 covers the
    few roundings around it; eps is the accumulation dtype's, so a result rounded to bfloat16 gets no more than that.
    """
    assert ours.shape == truth.shape and ours.dtype == theirs.dtype, name
    if not truth.numel():
        return
    assert torch.isfinite(ours).all() and torch.isfinite(truth).all(), f"{name}: not finite"
    eps = torch.finfo(torch.float64 if ours.dtype == torch.float64 else torch.float32).eps
    atol = 4 * math.sqrt(length) * eps * truth.abs().max().item()
    error, bound = max_error(ours, truth), 2 * max_error(theirs, truth) + atol
    assert error <= bound, f"{name}: error {error:.3e} exceeds {bound:.3e}"


def pool_gap(z):
    """Smallest distance between the largest two values of a 3x3/2 pooling window of z, where the largest is > 0."""
    padded = torch.nn.functional.pad(z, (1, 1, 1, 1), value=-1e9)
    windows = torch.nn.functional.unfold(padded, 3, stride=2).view(z.shape[0], z.shape[1], 9, -1)
    top = windows.topk(2, dim=2).values
    gaps = (top[:, :, 0] - top[:, :, 1])[top[:, :, 0] > 0]
    return gaps.min().item() if gaps.numel() else math.inf
