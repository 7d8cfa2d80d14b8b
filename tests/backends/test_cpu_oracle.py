"""Every CPU operator in every mode over the table of problems, against the reference backend."""

import engine
import pytest
import torch
from operator_cases import DTYPES, DTYPES_EVERYDAY, FORMATS, MODES, make_case
from problems import CONVS
from tolerance import assert_bit_equal, assert_oracle, rounded_terms

from resnet_fused import ops

EVERYDAY = ("stem", "3x3_s2", "odd_channels", "groups", "ragged", "one_pixel", "wide", "wino_ragged", "narrow", "1x1_s3")
PROBLEMS = [pytest.param(p, id=p.id, marks=() if p.id in EVERYDAY else pytest.mark.slow) for p in CONVS]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES_EVERYDAY)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_against_float64(problem, layout, dtype, mode):
    case = make_case(mode, problem, DTYPES[dtype], FORMATS[layout])
    truth = case.double().run(ops.get("reference"))
    theirs = case.run(ops.get("reference"))
    ours = case.run(ops.get("cpu"))
    assert len(ours) == len(theirs)
    for i, (a, b, c) in enumerate(zip(ours, theirs, truth)):
        if b.dtype == torch.uint8:
            assert_bit_equal(a, b)
        else:
            factor = engine.factor(problem, DTYPES[dtype]) if case.operator.startswith(("conv_", "frozen_chain")) else 2
            # A channel's gradients may cancel, whatever order they are summed in.
            terms = case.arguments[0].abs().max().item() if "backward_reduce" in case.operator else 0.0
            stored = rounded_terms(case, ours[0], c)
            assert_oracle(a, b, c, case.length, f"result {i}", terms=terms, stored=stored, factor=factor)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_memory_format_is_the_reference_s(problem, layout, mode):
    case = make_case(mode, problem, torch.float32, FORMATS[layout])
    for a, b in zip(case.run(ops.get("cpu")), case.run(ops.get("reference"))):
        # One channel or one pixel lies alike in both formats.
        if b.dim() == 4 and min(b.shape[1], b.shape[2] * b.shape[3]) > 1:
            assert a.stride() == b.stride()


@pytest.mark.parametrize("mode", ["fprop_residual_affine", "fprop_prologue", "backward_everything"])
@pytest.mark.parametrize("layout", FORMATS)
def test_library_composite(layout, mode):
    """The other way to run a convolution, with the same prologues and epilogues around it."""
    problem = next(p for p in CONVS if p.id == "groups")
    case = make_case(mode, problem, torch.float32, FORMATS[layout])
    with engine.engine("never"):
        assert engine.algorithm(problem, torch.float32) == "library"
        ours = case.run(ops.get("cpu"))
    reference = ops.get("reference")
    for a, b, c in zip(ours, case.run(reference), case.double().run(reference)):
        assert_oracle(a, b, c, case.length)
