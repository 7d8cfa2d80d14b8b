"""What is rejected, and in which words."""

import pytest
import torch

from resnet_fused import ops

CPU = ops.get("cpu")
X, AFFINE, MEANS = torch.randn(2, 3, 4, 4), torch.ones(4, 3), torch.zeros(2, 3)
WEIGHT = torch.randn(5, 3, 3, 3)
CONV = ((1, 1), (1, 1), (1, 1), 1)


def _fprop(x=X, weight=WEIGHT, conv=CONV, prologue=None, epilogue=None, residual=None, residual_affine=None, relu=False):
    return CPU.conv_fprop(x, weight, *conv, prologue, False, False, epilogue, residual, residual_affine, relu)


def _backward(grad, relu=False, out=None, raw=None, reduce=False, add=None, add_out=None, prologue=None, sums=(),
              mask=(True, True)):  # fmt: skip
    return CPU.conv_backward(
        grad, out, raw, None, None, relu, X, WEIGHT, *CONV, prologue, False, reduce, add, add_out, mask, *sums
    )


def _chains(*chains):
    """Two convolutions 3 -> 3."""
    weights, norms = [torch.randn(3, 3, 1, 1)] * 2, [*torch.ones(4, 3)] * 2
    return CPU.frozen_chains(X, weights, norms, [1e-5] * 2, [1, 1, 0, 0, 1, 1, 1, 1] * 2, chains)


GRAD = torch.randn(2, 5, 4, 4)
CASES = {
    **{
        f"sums {name}": (lambda sums=sums, options=options: _backward(GRAD, sums=sums, **options), RuntimeError, words)
        for name, sums, options, words in (
            ("without an affine", (X,), {}, "expected sum_affine to be given with sum_raw"),
            ("without a tensor", (None, AFFINE), {}, "expected sum_raw to be given with sum_affine"),
            ("with a second tensor alone", (None, None, X, AFFINE), {}, "expected sum_raw to be given with sum_affine"),
            ("without the second affine", (X, AFFINE, X), {}, "expected sum_affine2 to be given with sum_raw2"),
            ("with the second affine alone", (X, AFFINE, None, AFFINE), {}, "expected sum_affine2 to be given with"),
            ("of another size", (X[:1], AFFINE), {}, r"sum_raw should have size \[2, 3, 4, 4\]"),
            ("of another dtype", (X.double(), AFFINE), {}, "expected sum_raw to have dtype Float"),
            ("with a wrong affine", (X, torch.ones(4, 2)), {}, r"sum_affine should have size \[4, 3\]"),
            ("of a second size", (X, AFFINE, X[:1], AFFINE), {}, r"sum_raw2 should have size \[2, 3, 4, 4\]"),
            ("with a wrong second", (X, AFFINE, X, torch.ones(3, 3)), {}, r"sum_affine2 should have size \[4, 3\]"),
            ("with a prologue", (X, AFFINE), {"prologue": AFFINE}, "expected neither prologue nor reduce with sum_raw"),
            ("without dx", (X, AFFINE), {"mask": (False, True)}, "expected dx to be wanted with sum_raw"),
        )
    },
    **{
        f"chains {chains}": (lambda chains=chains: _chains(*chains), RuntimeError, words)
        for chains, words in (
            ((), "expected three numbers for each chain"),
            ((2, 0), "expected three numbers for each chain"),
            ((0, 1, 0, 1, 0, 0), "expected every chain to have convolutions"),
            ((-1, 0, 0, 2, 0, 0), "expected every chain to have convolutions"),
            ((2**63 - 1, 1, 0, 2**63 - 1, 1, 0, 2, 0, 0), "expected every chain to have convolutions"),
            ((1, 2, 0), "expected 0 or 1"),
            ((2, 0, -1), "expected 0 or 1"),
            ((1, 0, 0), "each to be in a chain"),
            ((2, 1, 0), "each to be in a chain"),
        )
    },
    "statistics of 3-D": (lambda: CPU.bn_statistics(X[0]), ValueError, r"expected 4D input \(got 3D input\)"),
    "statistics of float8": (
        lambda: CPU.bn_statistics(X.to(torch.float8_e5m2)), NotImplementedError,
        "\"batch_norm\" not implemented for 'Float8_e5m2'",
    ),
    "statistics of integers": (
        lambda: CPU.bn_statistics(X.int()), NotImplementedError, "\"batch_norm\" not implemented for 'Int'",
    ),
    "finalize of one row": (
        lambda: CPU.bn_finalize(torch.ones(1, 3), 4, None, None, 1e-5), RuntimeError, r"stats should have size \[2, C\]",
    ),
    "finalize in half": (
        lambda: CPU.bn_finalize(torch.ones(2, 3).half(), 4, None, None, 1e-5), RuntimeError, "Float or Double",
    ),
    "finalize with a wrong weight": (
        lambda: CPU.bn_finalize(torch.ones(2, 3), 4, torch.ones(4), None, 1e-5), RuntimeError,
        "weight should contain 3 elements not 4",
    ),
    "apply with a wrong affine": (
        lambda: CPU.bn_apply(X, torch.ones(4, 2), False), RuntimeError, r"affine should have size \[4, 3\], but got \[4, 2\]",
    ),
    "apply with a double affine": (
        lambda: CPU.bn_apply(X, AFFINE.double(), False), RuntimeError, "expected affine to have dtype Float",
    ),
    "apply with a wrong residual": (
        lambda: CPU.bn_apply(X, AFFINE, False, X[:1]), RuntimeError, r"residual should have size \[2, 3, 4, 4\]",
    ),
    "apply with another residual dtype": (
        lambda: CPU.bn_apply(X, AFFINE, False, X.double()), RuntimeError, "expected residual to have dtype Float",
    ),
    "apply with a residual's affine alone": (
        lambda: CPU.bn_apply(X, AFFINE, False, None, AFFINE), RuntimeError, "expected residual to be given",
    ),
    "reduce without a mask": (
        lambda: CPU.bn_backward_reduce(X, None, None, None, True), RuntimeError, "expected x or out to be given with relu",
    ),
    "reduce without affine": (
        lambda: CPU.bn_backward_reduce(X, None, X, None, False), RuntimeError, "expected affine to be given",
    ),
    "masked reduce without out": (
        lambda: CPU.bn_backward_mask_reduce(X, None, X, AFFINE), RuntimeError, "expected out to be given",
    ),
    "reduce of a second only": (
        lambda: CPU.bn_backward_reduce(X, None, None, None, False, X, AFFINE), RuntimeError, "expected x to be given with x2",
    ),
    "backward apply with wrong means": (
        lambda: CPU.bn_backward_apply(X, None, X, AFFINE, False, torch.zeros(1, 3)), RuntimeError, "means should have size",
    ),
    "convolution of other channels": (
        lambda: _fprop(x=X[:, :2].contiguous()), RuntimeError, "expected input.* to have 3 channels, but got 2 channels instead",
    ),
    "convolution of a small image": (
        lambda: _fprop(x=X[:, :, :1, :1].contiguous(), conv=((1, 1), (0, 0), (1, 1), 1)), RuntimeError,
        "Kernel size can't be greater than actual input size",
    ),
    "convolution of 3-D": (lambda: _fprop(x=X[0]), ValueError, r"expected 4D input \(got 3D input\)"),
    "convolution of mixed dtypes": (lambda: _fprop(weight=WEIGHT.double()), RuntimeError, "dtype|type"),
    "residual without epilogue": (
        lambda: _fprop(residual=GRAD), RuntimeError, "expected epilogue to be given with residual or relu",
    ),
    "relu without epilogue": (lambda: _fprop(relu=True), RuntimeError, "expected epilogue to be given"),
    "backward relu without out": (
        lambda: _backward(GRAD, relu=True), RuntimeError, "expected raw or out to be given with relu",
    ),
    "backward raw alone": (
        lambda: _backward(GRAD, raw=GRAD), RuntimeError, "expected affine and means to be given with raw",
    ),
    "reduce without prologue": (
        lambda: _backward(GRAD, reduce=True), RuntimeError, "expected prologue to be given with reduce",
    ),
    "add_out without add": (
        lambda: _backward(GRAD, add_out=X), RuntimeError, "expected add to be given with add_out",
    ),
    "add of another size": (lambda: _backward(GRAD, add=X[:1]), RuntimeError, r"should have size \[2, 3, 4, 4\]"),
    "pool of 3-D": (lambda: CPU.stem_pool(X[0], AFFINE), ValueError, "expected 4D input"),
    "pool backward with a float index": (
        lambda: CPU.stem_pool_backward_apply(X[..., :2, :2], X[..., :2, :2], (2, 3, 4, 4), None, None, None),
        RuntimeError, "expected index to have dtype Byte",
    ),
    "pool backward of another size": (
        lambda: CPU.stem_pool_backward_apply(X, X.byte(), (2, 3, 4, 4), None, None, None), RuntimeError,
        r"grad and index should have size \[2, 3, 2, 2\]",
    ),
    "pool backward without means": (
        lambda: CPU.stem_pool_backward_apply(
            X[..., :2, :2], X[..., :2, :2].byte(), (2, 3, 4, 4), X, AFFINE, None
        ),
        RuntimeError, "expected means to be given with x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_error(name):
    call, error, words = CASES[name]
    with pytest.raises(error, match=words):
        call()
