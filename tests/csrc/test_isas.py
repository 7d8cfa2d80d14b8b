"""Every kernel of every instruction set, on shapes that use its full vectors, its unrolled loops and its ragged ends."""

import engine
import pytest
import torch
from operator_cases import CPU_MODES, DTYPES, FORMATS, make_case
from problems import CPU_CONVS, ConvProblem
from tolerance import assert_bit_equal, assert_oracle

from resnet_fused import ops

# One mode for all the kernels around a convolution; below are the convolutions.
CONVOLUTIONS = ("fprop", "backward_", "dgrad", "wgrad")
KERNELS = [m for m in CPU_MODES if not m.startswith(CONVOLUTIONS) or m.startswith("backward_apply")]
KERNELS = [m for m in KERNELS if m != "backward"] + ["fprop_residual_affine", "backward_everything", "backward_masked"]


def _pointwise(C, H, W, N=2):
    return ConvProblem(f"{N}x{C}x{H}x{W}", N, C, H, W, C, 1, 1)


SHAPES = [
    _pointwise(1, 5, 19),
    _pointwise(3, 47, 45, N=1),  # a plane longer than a tile; pooled rows longer than a vector
    _pointwise(5, 1, 1, N=7),
    _pointwise(17, 7, 9),  # one lane more than a vector of 16 floats
    _pointwise(70, 5, 37),
    _pointwise(1100, 3, 3),  # rows longer than a page are taken four at a time
    _pointwise(1048, 3, 8),  # the same with masks, whose last byte of a row is half of a vector of 16
    _pointwise(24, 9, 8),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", SHAPES, ids=lambda p: p.id)
def test_kernels(problem, layout, dtype, isa):
    reference, cpu = ops.get("reference"), ops.get("cpu")
    for mode in KERNELS:
        case = make_case(mode, problem, DTYPES[dtype], FORMATS[layout])
        truths, theirs = case.double().run(reference), case.run(reference)
        for ours, their, truth in zip(case.run(cpu), theirs, truths):
            if their.dtype == torch.uint8:
                assert_bit_equal(ours, their)
            else:
                assert_oracle(ours, their, truth, case.length, mode)


CONV_IDS = ("wino_ragged", "wino_few_tiles", "wino_shared", "s2_odd", "folded_15", "narrow", "groups_wide", "dw_19_s2", "dw_35_dilated",
            "dw_7x7", "dw_splits", "1x1_strips", "1x1_groups", "lines_of_7_and_8", "lines_of_15")  # fmt: skip
CONV_SHAPES = [p for p in CPU_CONVS if p.id in CONV_IDS]
CONV_MODES = ["fprop_prologue", "fprop_residual", "fprop_residual_affine", "backward_everything", "dgrad", "wgrad"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", CONV_MODES)
@pytest.mark.parametrize("problem", CONV_SHAPES, ids=lambda p: p.id)
def test_convolutions(problem, mode, dtype, isa):
    case = make_case(mode, problem, DTYPES[dtype], torch.channels_last)
    reference = ops.get("reference")
    with engine.engine("always"):
        factor, ours = engine.factor(problem, DTYPES[dtype]), case.run(ops.get("cpu"))
    for a, b, c in zip(ours, case.run(reference), case.double().run(reference)):
        # Sums of results rounded to 16 bits are off by what each is, at random: √length of half its last bit.
        largest = ours[0].abs().max().item()
        terms = 2 * largest**2 if case.operator == "conv_fprop" else largest
        rounded = DTYPES[dtype].itemsize == 2 and c.dim() == 2
        stored = torch.finfo(DTYPES[dtype]).eps / 2 * case.length**0.5 * terms / c.abs().max().item() if rounded else 0.0
        assert_oracle(a, b, c, case.length, stored=stored, factor=factor)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounds_as_torch_does(dtype, isa):
    """All 65,536 values: ties to even, subnormals, overflow to infinity; a NaN stays one."""
    x = torch.arange(-32768, 32768, dtype=torch.int16).view(dtype).view(1, 64, 32, 32)
    for scale in (1.0, 0.5, 1 / 3, 1 + 2**-9, 3.0):
        affine = torch.tensor([0.0, scale, 0.0, 1.0]).view(4, 1).repeat(1, 64)
        for memory_format in FORMATS.values():
            y = ops.get("cpu").bn_apply(x.contiguous(memory_format=memory_format), affine, False)
            assert_bit_equal(y, (x.float() * scale).to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_any_float_rounds_as_torch_does(dtype, isa):
    """Floats of every exponent: halfway between two numbers of the dtype, their neighbours, and bits at random."""
    numbers = torch.arange(0, 32768, dtype=torch.int16).view(dtype).float()
    numbers = numbers[numbers.isfinite()]
    middle = ((numbers[1:].double() + numbers[:-1].double()) / 2).float()
    up, down = (torch.nextafter(middle, torch.tensor(end)) for end in (torch.inf, 0.0))
    last = numbers[-1] + (numbers[-1] - numbers[-2]) / 2  # from here on infinity
    ends = torch.stack((last, torch.nextafter(last, torch.tensor(0.0)), torch.tensor(torch.finfo(torch.float32).max)))
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(-(2**31), 2**31, (2**18,), generator=generator).int().view(torch.float32)
    values = torch.cat((numbers, middle, up, down, ends, random))
    values = torch.cat((values, -values))
    # One channel for each, whose affine map makes it of 0.
    zero, one = torch.zeros_like(values), torch.ones_like(values)
    affine = torch.stack((zero, zero, values, one))
    for pixels in (1, 2):
        x = torch.zeros(1, len(values), 1, pixels, dtype=dtype).contiguous(memory_format=torch.channels_last)
        y = ops.get("cpu").bn_apply(x, affine, False)
        assert_bit_equal(y, values.to(dtype).view(1, -1, 1, 1).expand(y.shape))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_nan_survives_rounding(dtype, isa):
    """Rounding up the NaN of all ones would carry into the sign: -0."""
    affine = torch.tensor([[0x7FFFFFFF], [0x3F800000], [0], [0x3F800000]], dtype=torch.int32).view(torch.float32)
    y = ops.get("cpu").bn_apply(torch.zeros(1, 1, 5, 9, dtype=dtype), affine, False)
    assert y.isnan().all()


@pytest.mark.parametrize("layout", FORMATS)
def test_pool_ties_and_nans(layout, isa):
    """Values 0, 1, 2 tie all the time; the winner is eager's in the vectors as at the ends."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 3, (2, 19, 11, 45), generator=generator).float()
    x[torch.rand(x.shape, generator=generator) < 0.05] = torch.nan
    x = x.contiguous(memory_format=FORMATS[layout])
    affine = torch.tensor([1.0, 1.0, 0.0, 1.0]).view(4, 1).repeat(1, 19)
    for ours, theirs in zip(ops.get("cpu").stem_pool(x, affine), ops.get("reference").stem_pool(x, affine)):
        assert_bit_equal(ours, theirs)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backward_masks_where_forward_did(dtype, layout, isa):
    """x within a few units in the last place of z's root, where another way to round z gives another sign."""
    acc, C = DTYPES[dtype], 53
    generator = torch.Generator().manual_seed(0)
    mean, scale, shift = (torch.randn(C, generator=generator, dtype=acc) for _ in range(3))
    mean[::2] = 0  # there x - mean has all of x's digits
    affine = torch.stack((mean, scale, shift, scale.abs()))
    root = (mean.double() - shift.double() / scale.double()).to(acc).view(1, C, 1, 1)
    steps = torch.arange(-36, 37, dtype=acc).view(1, 1, 1, 73)
    x = (root + steps * torch.finfo(acc).eps * root.abs() / 2).contiguous(memory_format=FORMATS[layout])
    cpu, ones = ops.get("cpu"), torch.ones_like(x)
    y = cpu.bn_apply(x, affine, True)
    if isa != "portable" and acc == torch.float32:
        # A fused multiply-add has the sign of the exact value, which float64 holds: products have 48 bits.
        column = [row.double().view(1, C, 1, 1) for row in (scale, shift)]
        difference = (x - mean.view(1, C, 1, 1)).double()
        assert_bit_equal(y > 0, difference * column[0] + column[1] > 0)
    passed = cpu.bn_backward_reduce(ones, None, x, affine, True)
    assert_bit_equal(passed[0], (y > 0).sum((0, 2, 3)).to(acc))
    means = torch.zeros(2, C, dtype=acc)
    draw = cpu.bn_backward_apply(ones, None, x, affine, True, means)
    assert_bit_equal(draw != 0, y > 0)
    operand, _ = cpu.conv_fprop(
        x, torch.eye(C, dtype=acc).view(C, C, 1, 1), (1, 1), (0, 0), (1, 1), 1, affine, True, False, None, None, None, False
    )
    assert_bit_equal(operand > 0, y > 0)
