"""What every backend's operators are held to."""

import torch
from tolerance import DIRECT, assert_bit_equal, assert_oracle, rounded_terms

from resnet_fused import ops

REFERENCE = ops.get("reference")


def for_each(values, check) -> None:
    """check(value) of every one, also after some that fail; AssertionError says which do, and why.

    For checks of milliseconds: a test of its own takes as long to be collected, run and reported.
    """
    failures = {}
    for value in values:
        try:
            check(value)
        except Exception as error:
            failures[value] = error
    if failures:
        lines = [f"{value}: {type(error).__name__}: {error}" for value, error in failures.items()]
        raise AssertionError("\n".join(lines)) from next(iter(failures.values()))


def check_integers(case, kernels, dtype, rounds_between: bool) -> None:
    """On small integers: float64's results, rounded once; where 16-bit intermediates are stored, the reference's."""
    intermediate = rounds_between and dtype.itemsize == 2 and case.operator.startswith("conv_")
    judge = case if intermediate else case.double()
    statistics = case.operator == "conv_fprop" and case.arguments[8]
    for a, b in zip(case.run(kernels), judge.run(REFERENCE)):
        if statistics and a.dim() == 2:
            continue
        expected = b.to(a.dtype)
        if a.dim() == 2 and expected.abs().max() > 2**24:  # sums beyond float32's integers: a few roundings of them
            torch.testing.assert_close(a, expected, rtol=0, atol=4 * 2**-24 * expected.abs().max().item())
        else:
            assert_bit_equal(a, expected)


def check_oracle(case, kernels, factor=DIRECT) -> tuple:
    """Errors against float64 by the bound of assert_oracle; a pool's index bit for bit. → results, the reference's."""
    ours, theirs, truth = case.run(kernels), case.run(REFERENCE), case.double().run(REFERENCE)
    assert len(ours) == len(theirs)
    for i, (a, b, c) in enumerate(zip(ours, theirs, truth)):
        if b.dtype == torch.uint8:
            assert_bit_equal(a, b)
        else:
            # A channel's gradients may cancel, whatever order they are summed in.
            terms = case.arguments[0].abs().max().item() if "backward_reduce" in case.operator else 0.0
            stored = rounded_terms(case, ours[0], c)
            assert_oracle(a, b, c, case.length, f"result {i}", terms=terms, stored=stored, factor=factor)
    return ours, theirs


def check_memory_format(case, kernels) -> None:
    assert_memory_format(case.run(kernels), case.run(REFERENCE))


def assert_memory_format(ours, theirs) -> None:
    for a, b in zip(ours, theirs):
        # One channel or one pixel lies alike in both formats.
        if b.dim() == 4 and min(b.shape[1], b.shape[2] * b.shape[3]) > 1:
            assert a.stride() == b.stride()


def check_what_is_written(case, kernels) -> None:
    """With memory poisoned: all results, no input; and the same bits a second time."""
    copies = case.mapped(torch.clone)
    first = case.run(kernels)
    for result in first:
        assert not result.isnan().any() if result.is_floating_point() else True
    for mine, copy in zip(case.arguments, copies.arguments):
        if isinstance(mine, torch.Tensor):
            assert_bit_equal(mine, copy)
    for a, b in zip(first, case.run(kernels)):
        assert_bit_equal(a, b)
