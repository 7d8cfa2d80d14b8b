"""Whole blocks, forward and backward, with the Triton kernels' PTX emulated: outputs, gradients, running statistics, by
the oracle bound against eager, as test_blocks_oracle.py has them for the other backends.
"""

import copy

import pytest
import torch
import triton_emulated
from compile_checks import check_one_graph
from operator_cases import FORMATS
from test_blocks_oracle import FLOAT32_MARGIN, HALF_MARGIN, PROBLEMS, _draw, _lengths, _run, _separate
from tolerance import assert_bit_equal, assert_oracle, eager_in_16_bits, stored_rounding

pytestmark = [triton_emulated.needs_emulator, pytest.mark.slow]
BACKEND = "triton_emulated"


@pytest.mark.parametrize("name, layout", [("basic", "nhwc"), ("bottleneck_stride", "nchw")])
def test_float32(name, layout):
    module, x = _draw(PROBLEMS[name], True, FLOAT32_MARGIN)
    module, x = module.to(memory_format=FORMATS[layout]), x.contiguous(memory_format=FORMATS[layout])
    single = [copy.deepcopy(module).float() for _ in range(2)]
    truth = _run(copy.deepcopy(module), x, "eager")
    ours, theirs = _run(single[0], x.float(), BACKEND), _run(single[1], x.float(), "eager")
    assert ours["out"].stride() == theirs["out"].stride()
    for key in truth:
        assert_oracle(ours[key], theirs[key], truth[key], _lengths(module, x), key)


@pytest.mark.parametrize("name", ["basic_stride", "bottleneck"])
def test_float16(name):
    half = torch.float16
    module, x = _draw(PROBLEMS[name], True, HALF_MARGIN, 0.3, _separate, half)
    x = x.contiguous(memory_format=torch.channels_last)
    truth = _run(copy.deepcopy(module), x, "eager")
    lower = module.to(half)
    ours = _run(copy.deepcopy(lower), x.to(half), BACKEND)
    theirs = eager_in_16_bits(lambda: _run(copy.deepcopy(lower), x.to(half), "eager"), truth)
    for key in truth:
        stored = stored_rounding(half, truth[key], x.numel() // x.shape[1])
        assert_oracle(ours[key], theirs[key], truth[key], _lengths(module, x), key, stored=stored)


def test_frozen_inference():
    module, x = _draw(PROBLEMS["bottleneck_stride"], False, FLOAT32_MARGIN)
    x = x.contiguous(memory_format=torch.channels_last)
    truth = _run(copy.deepcopy(module), x, "eager")
    ours, theirs = (_run(copy.deepcopy(module).float(), x.float(), backend) for backend in (BACKEND, "eager"))
    for key in truth:
        assert_oracle(ours[key], theirs[key], truth[key], _lengths(module, x), key)


@pytest.mark.parametrize("kind, dtype, training", [
    ("basic", torch.float32, True), ("bottleneck_stride", torch.float16, False),
], ids=["training", "inference"])  # fmt: skip
def test_compiled(kind, dtype, training):
    buffers, expected = check_one_graph(kind, training, BACKEND, dtype)
    for name, buffer in buffers.items():
        assert_bit_equal(buffer, expected[name])
