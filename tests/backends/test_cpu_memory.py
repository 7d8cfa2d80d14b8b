"""What an operator reads and writes: all of its results, none of its inputs, the same bits every time."""

import pytest
import torch
from checks import check_what_is_written, for_each
from operator_cases import CPU_MODES, FORMATS, make_case
from problems import CPU_CONVS
from tolerance import assert_bit_equal
from torch._prims_common import suggest_memory_format

from resnet_fused import ops

EVERYDAY = ("3x3_s2", "odd_channels", "pixels_unread", "wino_wide", "s2_dilated", "dw_s3_dilated")
PROBLEMS = [pytest.param(p, id=p.id, marks=() if p.id in EVERYDAY else pytest.mark.slow) for p in CPU_CONVS]
CPU = ops.get("cpu")


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_results_are_written_inputs_are_not(problem, layout, poison):
    def check(mode):
        check_what_is_written(make_case(mode, problem, torch.float32, FORMATS[layout]), CPU)

    for_each(CPU_MODES, check)


def test_the_poison_works(poison):
    assert torch.empty(1000).isnan().all()


def _noncontiguous(t):
    """The same values behind gaps, in the other memory format, and at an odd offset."""
    if t.dim() != 4:
        return t.repeat_interleave(2, dim=-1)[..., ::2]
    padded = t.new_full((t.shape[0], t.shape[1], t.shape[2] + 1, 2 * t.shape[3] + 1), 7)
    padded[:, :, 1:, 1::2] = t
    return padded[:, :, 1:, 1::2]


@pytest.mark.parametrize("mode", CPU_MODES)
@pytest.mark.parametrize("layout", FORMATS)
def test_strided_inputs(layout, mode):
    problem = next(p for p in CPU_CONVS if p.id == "odd_channels")
    case = make_case(mode, problem, torch.float32, FORMATS[layout])
    strided = case.mapped(_noncontiguous)

    def copy(t):
        # A view's format may be the other one, whose sums round differently, so the copy has it too.
        memory_format = suggest_memory_format(t) if t.dim() == 4 else torch.contiguous_format
        return t.contiguous(memory_format=memory_format)

    dense = strided.mapped(copy)
    for a, b in zip(strided.run(CPU), dense.run(CPU)):
        assert_bit_equal(a, b)


@pytest.mark.parametrize("mode", [mode for mode in CPU_MODES if not mode.startswith("pool")])
@pytest.mark.parametrize("layout", FORMATS)
def test_expanded_inputs(layout, mode):
    """A gradient of a mean is an expanded scalar, and a batch may be one image expanded."""
    problem = next(p for p in CPU_CONVS if p.id == "odd_channels")
    case = make_case(mode, problem, torch.float32, FORMATS[layout])
    expanded = case.mapped(lambda t: t[:1].expand(t.shape) if t.dim() == 4 and t.shape[0] == problem.N else t)
    dense = expanded.mapped(lambda t: t.contiguous())
    reference = dense.double().run(ops.get("reference"))
    for a, b, c in zip(expanded.run(CPU), dense.run(CPU), reference):
        # 1e-5: float32 sums of at most 300 terms of size about 1 to 30; the exact bound is the oracle test's business.
        scale = max(1.0, c.abs().max().item() if c.numel() else 1.0)
        torch.testing.assert_close(a.double(), c.double(), rtol=1e-5, atol=1e-5 * scale)
        assert a.shape == b.shape


@pytest.mark.parametrize("size", [(0, 3, 4, 4), (2, 3, 0, 4)])
def test_empty_batch(size):
    x = torch.empty(size)
    affine = torch.ones(4, 3)
    assert CPU.bn_apply(x, affine, True).shape == x.shape
    assert_bit_equal(CPU.bn_backward_reduce(x, None, x, affine, True), torch.zeros(2, 3))
    assert CPU.bn_backward_apply(x, None, x, affine, True, torch.zeros(2, 3)).shape == x.shape
    if size[0] == 0:
        conv = (torch.ones(5, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1)
        y, _ = CPU.conv_fprop(x, *conv, None, False, False, None, None, None, False)
        assert y.shape == (0, 5, 4, 4)
