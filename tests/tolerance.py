"""How results are compared. Exact where arithmetic is exact; else against float64, by the error eager makes itself."""

import math

import torch


def assert_bit_equal(ours, theirs):
    """Equal in dtype, shape and every bit but the sign of zero."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def max_error(value, truth):
    return (value.detach().double() - truth.double()).abs().max().item() if truth.numel() else 0.0


DIRECT, WINOGRAD = 2, 8  # times eager's error: the rounding of a sum in another order, and of Winograd's transforms


def assert_oracle(ours, theirs, truth, length, name="", terms=0.0, stored=0.0, factor=DIRECT):
    """max|ours − truth| <= factor·max|theirs − truth| + atol, theirs being the reference's result in the same dtype.

    atol = (4·√length·eps + stored)·max(max|truth|, terms): rounding errors of a sum of `length` terms grow as its
    square root; 4 covers the few roundings around it; eps is the accumulation dtype's, so a result rounded to 16 bits
    gets no more than that. `terms` is the size of the terms where a sum may cancel to nothing. `stored` is for whole
    modules, see stored_rounding.
    """
    assert ours.shape == truth.shape and ours.dtype == theirs.dtype, name
    if not truth.numel():
        return
    assert torch.isfinite(ours).all() and torch.isfinite(truth).all(), f"{name}: not finite"
    eps = torch.finfo(torch.float64 if ours.dtype == torch.float64 else torch.float32).eps
    atol = (4 * math.sqrt(length) * eps + stored) * max(truth.abs().max().item(), terms)
    error, bound = max_error(ours, truth), factor * max_error(theirs, truth) + factor / DIRECT * atol
    assert error <= bound, f"{name}: error {error:.3e} exceeds {bound:.3e}"


def stored_rounding(dtype, truth, pixels):
    """Relative error that intermediates stored in 16 bits leave in a module's result, 0 for other dtypes.

    Ours and eager's intermediates are rounded at different places (a frozen batch norm scales a weight's gradient
    after its sum, eager before), and the largest error of few elements is itself random. One rounding, eps/2; in a
    sum over pixels, as a vector parameter's gradient is, √pixels of them, whose terms may cancel.
    """
    if dtype.itemsize != 2:
        return 0.0
    return torch.finfo(dtype).eps / 2 * (math.sqrt(pixels) if truth.dim() == 1 else 1)


def eager_in_16_bits(run, truth):
    """run() → results by name; of each the less exact of oneDNN's convolutions and of torch's own.

    Which of them eager takes in 16 bits depends on the processor's instructions; and the largest error of few elements
    depends on chance, so that of one run, where it happens to be small, is no measure of what 16 bits allow.
    """
    both = []
    for enabled in (True, False):
        with torch.backends.mkldnn.flags(enabled=enabled):
            both.append(run())
    return {name: max((r[name] for r in both), key=lambda r: max_error(r, truth[name])) for name in truth}


def rounded_terms(case, result, truth):
    """Error, relative to `truth`, of a convolution's statistics or sums where its result is rounded to 16 bits.

    Ours and the reference round at different places, so that the results differ by a last bit here and there; of each
    term that is eps/2 at most, and random: √length of them.
    """
    if result.dtype.itemsize != 2 or not case.operator.startswith("conv_") or truth.dim() != 2:
        return 0.0
    largest = result.abs().max().item()
    terms = 2 * largest**2 if case.operator == "conv_fprop" else largest
    relative = terms / max(truth.abs().max().item(), 1e-30)
    return torch.finfo(result.dtype).eps / 2 * case.length**0.5 * relative


def pool_gap(z):
    """Smallest distance between the largest two values of a 3x3/2 pooling window of z, where the largest is > 0."""
    padded = torch.nn.functional.pad(z, (1, 1, 1, 1), value=-1e9)
    windows = torch.nn.functional.unfold(padded, 3, stride=2).view(z.shape[0], z.shape[1], 9, -1)
    top = windows.topk(2, dim=2).values
    gaps = (top[:, :, 0] - top[:, :, 1])[top[:, :, 0] > 0]
    return gaps.min().item() if gaps.numel() else math.inf
