"""The Triton operators as torch.library has them, by the interpreter: PyTorch's own check, and in a compiled graph."""

import pytest
import torch
from compile_checks import check_one_graph
from operator_cases import CPU_MODES, make_case
from tolerance import assert_bit_equal
from triton_cases import ODD

from resnet_fused import backends

OPERATORS = torch.ops.resnet_fused_triton
backends.register("interpreted", backends._registered["triton"])  # "triton" itself serves GPUs alone
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", CPU_MODES)
def test_opcheck(mode):
    case = make_case(mode, ODD, torch.float32, torch.channels_last)
    report = torch.library.opcheck(getattr(OPERATORS, case.operator).default, case.arguments)
    assert set(report.values()) == {"SUCCESS"}


def test_opcheck_of_what_is_written_in_place():
    stats = [torch.rand(2, 5), torch.rand(2, 3)]
    running = [[torch.rand(5), torch.rand(3)] for _ in range(2)]
    arguments = (stats, [7, 8], [0.1, 0.3], *running, [torch.tensor(4), torch.tensor(0)])
    report = torch.library.opcheck(OPERATORS.bn_update_running.default, arguments)
    assert set(report.values()) == {"SUCCESS"}


@pytest.mark.parametrize("mode", ["fprop_prologue", "backward_everything"])
def test_the_same_with_and_without_the_library(mode):
    case = make_case(mode, ODD, torch.float32, torch.channels_last)
    for a, b in zip(case.run(OPERATORS), case.run(backends.get("triton"))):
        assert_bit_equal(a, b)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("kind", ["basic", "bottleneck_stride"])
def test_one_graph(kind, training):
    buffers, expected = check_one_graph(kind, training, "interpreted")
    for name, buffer in buffers.items():
        assert_bit_equal(buffer, expected[name])
