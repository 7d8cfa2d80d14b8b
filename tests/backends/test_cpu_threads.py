"""Work split over threads: the same oracle bound, and for one number of threads the same bits every time."""

import pytest
import torch
from operator_cases import FORMATS, MODES, make_case
from problems import ConvProblem
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


CHOSEN = [mode for mode in MODES if not mode.startswith(("backward_", "fprop_")) or mode.endswith("everything")]


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
