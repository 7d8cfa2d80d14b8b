"""Pre-activation chains and lone batch norms with ReLU on the kernels of every backend, in float32 and in 16 bits.

As blocks, small ones: test_variants.py has all of them, on the CPU. By the oracle bound against eager, as
autograd/test_blocks_oracle.py has residual chains.
"""

import copy

import cuda_emulated
import pytest
import torch
import triton_emulated
from operator_cases import FORMATS
from tolerance import assert_bit_equal, assert_oracle, eager_in_16_bits, stored_rounding
from torch import nn
from variants import MODES, Variant, draw, results, run_seeded

import resnet_fused

SLOW = pytest.mark.slow
CUDA = pytest.param("cuda_emulated", marks=(cuda_emulated.needs_emulator, SLOW))
TRITON = pytest.param("triton_emulated", marks=(triton_emulated.needs_emulator, SLOW))
BACKENDS = ("cpu", CUDA, TRITON)
# A chain with each shortcut within it, and without a batch norm before its first convolution; the latter two come with
# a batch norm and ReLU of their own: behind the sum, and before a branch that is changed before the sum.
VARIANTS = {v.id: v for v in (
    Variant("basic", "preactivation", "projection", True),
    Variant("bottleneck", "preactivation", "scaling", False),
    Variant("bottleneck", "bn_after_add", "projection", False),
    Variant("basic", "preactivation", "projection", True, stochastic_depth=0.4),
)}  # fmt: skip
# float32 errors of these sums are some 1e-6; no ReLU argument comes nearer to 0 than ten times that.
FLOAT32_MARGIN = 1e-5
# bfloat16 rounds z to about 2^-8·|z|, a few of them add up; channels are kept wholly on or off.
HALF_MARGIN = 0.25


def _separate(block):
    """Every batch norm's channels become wholly positive or wholly negative, so that no mask depends on rounding."""
    with torch.no_grad():
        for bn in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
            bn.weight.uniform_(0.2, 0.4)
            bn.bias.copy_(3 * (1 - 2.0 * torch.arange(len(bn.bias)).remainder(2)))


def _check(block, x, backend, dtype, layout):
    block, x = block.to(memory_format=FORMATS[layout]), x.contiguous(memory_format=FORMATS[layout])
    truth = results(copy.deepcopy(block), x, "eager")

    def run(which):
        return results(copy.deepcopy(block).to(dtype), x.to(dtype), which)

    ours = run(backend)
    theirs = eager_in_16_bits(lambda: run("eager"), truth) if dtype.itemsize == 2 else run("eager")
    pixels = x.numel() // x.shape[1]
    length = pixels + max(p[0].numel() for p in block.parameters() if p.dim() == 4)
    for key in truth:
        if truth[key].is_floating_point():
            stored = stored_rounding(dtype, truth[key], pixels)
            # Oracle. A weight's gradient before batch statistics cancels to near nothing: its terms are the gradients'.
            assert_oracle(ours[key], theirs[key], truth[key], length, key, terms=1.0, stored=stored)
    _check_inference(block.to(dtype), x.to(dtype), backend, ours["out"])


def _check_inference(block, x, backend, expected):
    """Without gradients the same calls: bit-equal."""
    with torch.no_grad(), resnet_fused.backend(backend):
        assert_bit_equal(run_seeded(block, x), expected)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_float32(backend, name, mode, layout):
    block, x = draw(VARIANTS[name], mode, FLOAT32_MARGIN, torch.float32)
    _check(block, x, backend, torch.float32, layout)


@pytest.mark.parametrize("half", (torch.bfloat16, pytest.param(torch.float16, marks=SLOW)), ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_16_bits(backend, name, mode, half):
    block, x = draw(VARIANTS[name], mode, HALF_MARGIN, half, _separate)
    _check(block, x, backend, half, "nhwc")
