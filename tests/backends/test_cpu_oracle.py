"""Every CPU operator in every mode over the table of problems, against the reference backend."""

import engine
import pytest
import torch
from checks import assert_memory_format, check_oracle, for_each
from operator_cases import CPU_MODES, DTYPES, DTYPES_EVERYDAY, FORMATS, make_case
from problems import CPU_CONVS
from tolerance import DIRECT, assert_oracle

from resnet_fused import ops

EVERYDAY = ("stem", "3x3_s2", "odd_channels", "groups", "ragged", "one_pixel", "wide", "wino_ragged", "narrow", "1x1_s3",
            "dw_19_s2", "dw_7x7")
PROBLEMS = [pytest.param(p, id=p.id, marks=() if p.id in EVERYDAY else pytest.mark.slow) for p in CPU_CONVS]


@pytest.mark.parametrize("dtype", DTYPES_EVERYDAY)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_against_float64(problem, layout, dtype):
    """And results lie in memory as the reference's do."""

    def check(mode):
        case = make_case(mode, problem, DTYPES[dtype], FORMATS[layout])
        convolution = case.operator.startswith(("conv_", "frozen_chains"))
        factor = engine.factor(problem, DTYPES[dtype]) if convolution else DIRECT
        assert_memory_format(*check_oracle(case, ops.get("cpu"), factor))

    for_each(CPU_MODES, check)


@pytest.mark.parametrize("mode", ["fprop_residual_affine", "fprop_prologue", "backward_everything"])
@pytest.mark.parametrize("layout", FORMATS)
def test_library_composite(layout, mode):
    """The other way to run a convolution, with the same prologues and epilogues around it."""
    problem = next(p for p in CPU_CONVS if p.id == "groups")
    case = make_case(mode, problem, torch.float32, FORMATS[layout])
    with engine.engine("never"):
        assert engine.algorithm(problem, torch.float32) == "library"
        ours = case.run(ops.get("cpu"))
    reference = ops.get("reference")
    for a, b, c in zip(ours, case.run(reference), case.double().run(reference)):
        assert_oracle(a, b, c, case.length)


@pytest.mark.parametrize("seed", range(4))
def test_statistics_of_a_long_strip(seed):
    """2,775 pixels of one part, in 37 runs of 75, against float64."""
    torch.manual_seed(seed)
    x, w = torch.randn(1, 16, 37, 150).contiguous(memory_format=torch.channels_last), torch.randn(16, 1, 3, 3)
    # After a ReLU, values are of one sign and the border's, which the pivot is of, are smaller than the rest.
    affine = torch.stack([torch.randn(16), 0.5 + torch.randn(16).abs(), torch.randn(16), torch.ones(16)])
    conv = ((1, 2), (1, 1), (1, 1), 16)
    y, stats = ops.get("cpu").conv_fprop(x, w, *conv, affine, True, True, None, None, None, False)
    m2 = y.double().var((0, 2, 3), correction=0) * 37 * 75
    # 75 and then 37 additions in float32, each at most 2^-24 of a sum: a single long one is off by several times that.
    assert ((stats[1] - m2) / m2).abs().max() <= (75 + 37) * 2**-24
