"""Small integers: every intermediate is exact in the accumulation dtype, so results equal float64's, rounded once."""

import engine
import pytest
import torch
from checks import check_integers, for_each
from operator_cases import CPU_MODES, DTYPES, FORMATS, make_case
from problems import CPU_CONVS, POINTWISE
from tolerance import assert_bit_equal

from resnet_fused import ops

# Not exact: means of statistics, and invstd of finalize and of chains.
EXACT = [mode for mode in CPU_MODES if not mode.startswith(("statistics", "finalize", "chain"))]
EVERYDAY = ("stem", "3x3", "1x1_s2", "one_channel", "dilated", "depthwise", "non_square", "wino_whole", "far_padding",
            "dw_35_dilated")
PROBLEMS = [pytest.param(p, id=p.id, marks=() if p.id in EVERYDAY else pytest.mark.slow) for p in CPU_CONVS]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_integers(problem, layout, dtype):
    def check(mode):
        case = make_case(mode, problem, DTYPES[dtype], FORMATS[layout], integer=True)
        # The library's 16-bit convolutions read and write what is rounded, float64's do not: the reference judges them.
        intermediate = DTYPES[dtype].itemsize == 2 and case.operator.startswith("conv_")
        with engine.winograd(False), engine.engine("never" if intermediate else "auto"):  # Winograd's transforms round
            check_integers(case, ops.get("cpu"), DTYPES[dtype], rounds_between=True)

    for_each(EXACT, check)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_16_bit_convolution_rounds_once(problem, dtype, layout):
    """The engine's own: what a prologue makes of its operands is not rounded."""

    def check(mode):
        case = make_case(mode, problem, DTYPES[dtype], FORMATS[layout], integer=True)
        with engine.winograd(False), engine.engine("always"):
            ours = case.run(ops.get("cpu"))
        for a, b in zip(ours, case.double().run(ops.get("reference"))):
            assert_bit_equal(a, b.to(a.dtype))

    for_each(["fprop", "fprop_prologue_linear", "backward_bn", "backward_dw"], check)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", FORMATS)
def test_constant_channels_have_no_variance(layout, dtype):
    values = torch.tensor([0.0, 1000.0, -3.0, 2.0**-20, 12345.0 if DTYPES[dtype].itemsize > 2 else 12288.0])
    x = values.to(DTYPES[dtype]).view(1, -1, 1, 1).expand(3, 5, 7, 9).contiguous(memory_format=FORMATS[layout])
    mean, m2 = ops.get("cpu").bn_statistics(x)
    # Partial means are merged in float64: rounded to float32 they are exact, in float64 off by its last bits.
    rtol = 4 * torch.finfo(torch.float64).eps if dtype == "float64" else 0
    torch.testing.assert_close(mean, x[0, :, 0, 0].to(mean.dtype), rtol=rtol, atol=0)
    # Of 189 deviations by that much the squares remain.
    assert (m2 <= 189 * (4 * torch.finfo(torch.float64).eps * mean.double()) ** 2).all()


@pytest.mark.parametrize("layout", FORMATS)
def test_variance_survives_a_large_mean(layout):
    """E[x²] − E[x]² would lose all of it: 1e4² has no float32 digits left for a variance of 1e-2."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(8, 6, 9, 11, generator=generator)
    x = (1e4 + noise).contiguous(memory_format=FORMATS[layout])
    mean, m2 = ops.get("cpu").bn_statistics(x)
    truth = x.double().var((0, 2, 3), correction=0) * (8 * 9 * 11)
    # The deviations from the pivot are exact; √n·eps of their sum of squares remains, n = 792.
    torch.testing.assert_close(m2.double(), truth, rtol=28 * 1.2e-7, atol=0)
    # The mean is rounded once: half a float32 ulp at 1e4.
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=2**-23, atol=0)


def _pool_index(x):
    affine = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    y, index = ops.get("cpu").stem_pool(x, affine)
    torch.testing.assert_close(y, torch.nn.functional.max_pool2d(x.relu(), 3, 2, 1), rtol=0, atol=0, equal_nan=True)
    return index[0, 0].tolist()


def test_pool_ties_and_nans_are_eager_s():
    x = torch.full((1, 1, 4, 4), -1.0)
    assert _pool_index(x) == [[255, 255], [255, 255]]
    assert _pool_index(torch.ones(1, 1, 4, 4)) == [[4, 3], [1, 0]]  # the first maximum of each window
    x[0, 0, 1, 1] = 5
    assert _pool_index(x) == [[8, 6], [2, 0]]
    x[0, 0, 0, 0] = torch.nan
    assert _pool_index(x) == [[4, 6], [2, 0]]
    x[0, 0, 0, 1] = torch.nan
    assert _pool_index(x) == [[5, 3], [2, 0]]  # the last NaN


@pytest.mark.parametrize("layout", FORMATS)
def test_relu_keeps_nan_and_its_gradient(layout):
    x = torch.tensor([torch.nan, -1.0, 0.0, 2.0] * 10).view(1, 1, 4, 10).expand(1, 2, 4, 10)
    x = x.contiguous(memory_format=FORMATS[layout])
    affine = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    y = ops.get("cpu").bn_apply(x, affine, True)
    assert_bit_equal(y, torch.relu(x))
    passed = ops.get("cpu").bn_backward_reduce(torch.ones_like(x), y, None, None, True)
    assert passed.tolist() == [[20.0, 20.0]]  # NaN and 2; neither -1 nor 0
    passed = ops.get("cpu").bn_backward_reduce(torch.ones_like(x), None, x, affine, True)
    assert passed[0].tolist() == [20.0, 20.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("problem", POINTWISE, ids=lambda p: p.id)
def test_read_in_place_as_if_packed(problem, dtype):
    """The same bits as behind a prologue that changes nothing, which is applied as the operand is packed."""
    x, weight, *geometry = make_case("fprop", problem, dtype, torch.channels_last).arguments[:6]
    identity = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=dtype).view(4, 1).repeat(1, problem.C)
    in_place, packed = (
        ops.get("cpu").conv_fprop(x, weight, *geometry, prologue, False, False, None, None, None, False)[0]
        for prologue in (None, identity)
    )
    assert_bit_equal(in_place, packed)
