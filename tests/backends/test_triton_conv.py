"""The Triton convolutions on a machine without a GPU: their PTX by the emulator, their sources by the interpreter."""

import contextlib
import copy
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton_emulated
from conv_checks import TILES, check_integers, check_oracle
from emulator.library import SCHEDULES
from operator_cases import make_case
from problems import CONVS, ConvProblem
from tolerance import assert_bit_equal

TESTS = Path(__file__).resolve().parents[1]
LAST = torch.channels_last
DTYPES = {"float16": (torch.float16, False), "bfloat16": (torch.bfloat16, False), "tf32": (torch.float32, True),
          "float32": (torch.float32, False)}  # fmt: skip
DTYPES_EVERYDAY = [name if name == "float16" else pytest.param(name, marks=pytest.mark.slow) for name in DTYPES]
# Triton reads 16 bytes at a time where channels are a multiple of 16; one kernel is compiled for both of these.
WHOLE = ConvProblem("whole", 2, 32, 9, 7, 48, 3, 3, padding=(1, 1))
WHOLE_S2 = ConvProblem("whole_s2", 2, 48, 9, 10, 32, 3, 3, (2, 2), (1, 1))
EVERYTHING = ("fprop_prologue", "fprop_residual_affine", "backward_everything")

PROBLEMS = {p.id: p for p in (WHOLE, WHOLE_S2, *CONVS, *TILES)}
SLOW = ("stem", "odd_channels", "groups", "whole_s2", "pieces_dilated_s2", "unread")


@pytest.fixture(autouse=True)
def emulated():
    return triton_emulated.EMULATOR


@functools.lru_cache
def draw_case(mode, problem, dtype, integer=True):
    return make_case(mode, problem, dtype, LAST, integer)


@contextlib.contextmanager
def tf32(allowed):
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def check(problem, mode, dtype):
    dtype, allowed = DTYPES[dtype]
    with tf32(allowed):
        check_integers(triton_emulated.OPERATORS, draw_case(mode, problem, dtype), dtype)
        if not allowed:
            check_oracle(triton_emulated.OPERATORS, draw_case(mode, problem, dtype, False), dtype)


@triton_emulated.needs_emulator
@pytest.mark.parametrize("mode", EVERYTHING)
@pytest.mark.parametrize("dtype", DTYPES_EVERYDAY)
def test_emulated(dtype, mode):
    check(WHOLE, mode, dtype)


@pytest.mark.slow
@triton_emulated.needs_emulator
@pytest.mark.parametrize("mode", EVERYTHING)
@pytest.mark.parametrize("name", SLOW)
def test_emulated_shapes(name, mode):
    check(PROBLEMS[name], mode, "float16")
