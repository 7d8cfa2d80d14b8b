"""Work split over threads: the same oracle bound, and for one number of threads the same bits every time."""

import engine
import pytest
import torch
from operator_cases import CPU_MODES, FORMATS, make_case
from problems import CPU_CONVS, WINOGRAD, ConvProblem
from tolerance import assert_bit_equal, assert_oracle

from resnet_fused import ops

# Large enough to be split whatever the grain, in the batch and in the rows.
LARGE = ConvProblem("large", 6, 24, 29, 31, 20, 3, 3, (1, 1), (1, 1))


@pytest.fixture(params=[2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


CHOSEN = [mode for mode in CPU_MODES if not mode.startswith(("backward_", "fprop_")) or mode.endswith("everything")]


@pytest.mark.parametrize("mode", CHOSEN)
@pytest.mark.parametrize("layout", FORMATS)
def test_split_work(layout, mode, threads):
    case = make_case(mode, LARGE, torch.float32, FORMATS[layout])
    reference = ops.get("reference")
    ours = case.run(ops.get("cpu"))
    for a, b, c in zip(ours, case.run(reference), case.double().run(reference)):
        if a.dtype == torch.uint8:
            assert_bit_equal(a, b)
        else:
            assert_oracle(a, b, c, case.length)
    for a, b in zip(ours, case.run(ops.get("cpu"))):
        assert_bit_equal(a, b)


ENGINE_MODES = ["fprop_prologue", "fprop_residual_affine", "backward_everything"]
SPLIT_IDS = ("wino_blocks", "wino_shared", "many_strips", "far_padding", "stem", "wide", "dw_splits", "dw_wide", "lines_of_7",
             "lines_of_14", "lines_of_8_deep")  # fmt: skip
SPLIT = [p for p in CPU_CONVS if p.id in SPLIT_IDS]


@pytest.mark.parametrize("mode", ENGINE_MODES)
@pytest.mark.parametrize("problem", SPLIT, ids=lambda p: p.id)
def test_same_bits_whoever_runs_what(problem, mode, threads):
    """Tasks go to whichever thread is free; twenty runs have not all had the same luck."""
    case = make_case(mode, problem, torch.float32, torch.channels_last)
    first = case.run(ops.get("cpu"))
    for _ in range(20):
        for a, b in zip(first, case.run(ops.get("cpu"))):
            assert_bit_equal(a, b)


EVERYDAY = ("wino_ragged", "wino_shared", "wino_few_tiles", "far_padding", "stem", "dw_splits", "dw_wide")
PLANNED = [pytest.param(p, id=p.id, marks=() if p.id in EVERYDAY else pytest.mark.slow)
           for p in dict.fromkeys((*SPLIT, *WINOGRAD))]  # fmt: skip


@pytest.mark.parametrize("mode", ENGINE_MODES)
@pytest.mark.parametrize("problem", PLANNED)
def test_plans_for_several_threads(problem, mode, threads):
    """A problem is cut into other blocks and strips for other numbers of threads."""
    case = make_case(mode, problem, torch.float32, torch.channels_last)
    reference = ops.get("reference")
    factor = engine.factor(problem, torch.float32)
    for a, b, c in zip(case.run(ops.get("cpu")), case.run(reference), case.double().run(reference)):
        assert_oracle(a, b, c, case.length, factor=factor)


def test_more_threads_than_work(threads):
    problem = next(p for p in CPU_CONVS if p.id == "one_pixel")
    for mode in ENGINE_MODES:
        case = make_case(mode, problem, torch.float64, torch.channels_last)
        for a, b in zip(case.run(ops.get("cpu")), case.run(ops.get("reference"))):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)  # float64 sums of tens of terms
