"""The Triton convolutions by the interpreter, one mode at a time: float32 and float16 (bfloat16 is wrong there)."""

import pytest
import torch
from conv_checks import CONV_MODES, check_integers, check_oracle
from operator_cases import make_case
from problems import CONVS

from resnet_fused.backends import triton

SMALL = ("odd_channels", "one_channel", "dilated", "groups", "depthwise", "unpadded", "one_pixel", "pixels_unread",
         "non_square", "1x1_s2")  # fmt: skip
PROBLEMS = {p.id: p for p in CONVS if p.id in SMALL}
EVERYTHING = ("fprop_prologue", "fprop_residual_affine", "backward_everything")
# Every mode on one problem, every problem in the modes that do everything.
CASES = [
    pytest.param(problem, mode, id=f"{name}-{mode}", marks=() if name == "odd_channels" else pytest.mark.slow)
    for name, problem in PROBLEMS.items()
    for mode in (CONV_MODES if name == "odd_channels" else EVERYTHING)
]


@pytest.mark.parametrize("problem, mode", CASES)
def test_integers(problem, mode):
    check_integers(triton, make_case(mode, problem, torch.float32, torch.channels_last, integer=True), torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("problem, mode", CASES)
def test_against_float64(problem, mode):
    check_oracle(triton, make_case(mode, problem, torch.float16, torch.channels_last), torch.float16)
