"""The Triton operators as Triton's interpreter runs them, tile by tile in numpy, against the reference in float64.

bfloat16 is left to the emulator: the interpreter truncates where it should round (triton issue 11584).
"""

import pytest
import torch
from backends.checks import check_integers, check_memory_format, check_oracle, check_what_is_written
from operator_cases import DTYPES, FORMATS, make_case
from tolerance import assert_bit_equal
from triton_cases import CONVOLUTIONS, EXACT, KERNELS, ODD

from resnet_fused.backends import reference, relu_mask, triton
from resnet_fused.backends.triton import sweep

# The emulator has channels last every day.
LAYOUTS = pytest.mark.parametrize("layout", ["nchw", pytest.param("nhwc", marks=pytest.mark.slow)])
TYPES = pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=pytest.mark.slow)])


@pytest.mark.parametrize("mode", KERNELS)
@TYPES
@LAYOUTS
def test_against_float64(layout, dtype, mode):
    check_oracle(make_case(mode, ODD, DTYPES[dtype], FORMATS[layout]), triton)


@pytest.mark.slow
@pytest.mark.parametrize("mode", EXACT)
@TYPES
@LAYOUTS
def test_on_integers(layout, dtype, mode):
    case = make_case(mode, ODD, DTYPES[dtype], FORMATS[layout], integer=True)
    check_integers(case, triton, DTYPES[dtype], rounds_between=False)


@pytest.mark.slow
@pytest.mark.parametrize("mode", CONVOLUTIONS)
def test_around_the_library_s_convolutions(mode, poison):
    """Which are the convolutions of contiguous tensors."""
    case = make_case(mode, ODD, torch.float32, torch.contiguous_format)
    check_oracle(case, triton)
    check_what_is_written(case, triton)


@pytest.mark.parametrize("mode", ["statistics", "mask_reduce_two", "pool", "pool_reduce", "pool_apply"])
@LAYOUTS
def test_what_is_written(layout, mode, poison):
    case = make_case(mode, ODD, torch.float32, FORMATS[layout])
    check_what_is_written(case, triton)
    check_memory_format(case, triton)


@pytest.mark.parametrize("mode", ["statistics", "reduce_two", "apply_relu", "pool_reduce"])
@LAYOUTS
def test_several_tiles_of_a_program(layout, mode, monkeypatch):
    """In tensors too large for the interpreter there are more tiles than programs; here the last has fewer than two."""
    monkeypatch.setattr(sweep, "ENOUGH_PROGRAMS", 1)
    monkeypatch.setattr(sweep, "MOST_TILES", 2)
    case = make_case(mode, ODD._replace(id="larger", N=5, H=12, W=14), torch.float32, FORMATS[layout])
    check_oracle(case, triton)


@pytest.mark.parametrize("mode", ["apply_mask", "apply_mask_affine", "mask_reduce_bits", "mask_reduce_two_bits"])
@LAYOUTS
def test_masks(layout, mode):
    """Of several tiles, none of them full."""
    problem = ODD._replace(id="eights", C=24, K=24, H=10, W=12)
    case = make_case(mode, problem, torch.float32, FORMATS[layout], integer=True)
    if "bits" in mode:  # what the mask stands for is not read
        case = case._replace(arguments=(case.arguments[0], torch.ones_like(case.arguments[1]), *case.arguments[2:]))
    check_integers(case, triton, torch.float32, rounds_between=False)


@pytest.mark.parametrize(
    "size, strides", [((2, 8, 5, 1), (40, 1, 8, 1)), ((1, 8, 4, 6), (8, 1, 48, 8))], ids=["column", "image"]
)
def test_masks_of_gradients_with_other_strides_where_sizes_are_1(size, strides):
    """Dense channels last as x is, by whose strides alone it cannot be told: as behind squeeze() and transpose()."""
    case = make_case("mask_reduce_bits", ODD._replace(N=size[0], C=8, K=8, H=size[2], W=size[3]), torch.float32,
                     torch.channels_last, integer=True)  # fmt: skip
    grad, _, *rest = case.arguments
    grad = torch.empty_strided(size, strides).copy_(grad)
    assert not relu_mask.of_channels(grad) and grad.is_contiguous(memory_format=torch.channels_last)
    check_integers(case._replace(arguments=(grad, None, *rest)), triton, torch.float32, rounds_between=False)


def _x(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


@LAYOUTS
def test_large_means_do_not_cancel(layout):
    x = (1e4 + _x(4, 3, 12, 12)).contiguous(memory_format=FORMATS[layout])
    truth = reference.bn_statistics(x.double())
    ours = triton.bn_statistics(x).double()
    # Float32 sums of 576 terms of size 1: 24 roundings at random. E[x^2] - E[x]^2 would be off by 1e8 times as much.
    assert ((ours[1] - truth[1]).abs() / truth[1]).max() <= 24 * 2**-23
    assert ((ours[0] - truth[0]).abs() / truth[0]).max() <= 2**-23


def test_the_affine_is_centred():
    x = 1e4 + _x(4, 3, 5, 5)
    affine = torch.tensor([[1e4], [1.7], [0.5], [1.7]]).expand(4, 3).contiguous()
    truth = reference.bn_apply(x.double(), affine.double(), False)
    # x - mean is exact here; a product and a sum of size 10 are rounded. x·scale - mean·scale would be off by 1e-3.
    assert (triton.bn_apply(x, affine, False) - truth).abs().max() <= 2 * 10 * 2**-24


def test_nan_passes_relu_and_its_mask():
    x = _x(2, 3, 4, 4)
    x[0, 1, 2, 3] = torch.nan
    affine = torch.tensor([[0.0], [1.0], [0.0], [1.0]]).expand(4, 3).contiguous()
    assert_bit_equal(triton.bn_apply(x, affine, True), x.relu())
    _, mask = triton.bn_apply_mask(x, affine, torch.zeros_like(x))
    assert_bit_equal(relu_mask.unpack(mask, x.shape), ~(x <= 0))
    g = torch.ones_like(x)
    passed, sums = triton.bn_backward_mask_reduce(g, x, torch.zeros_like(x), affine)
    assert_bit_equal(passed, g.masked_fill(x <= 0, 0))
    assert passed[0, 1, 2, 3] == 1 and torch.equal(sums[0], passed.sum((0, 2, 3)))
    assert torch.equal(triton.stem_pool(x, affine)[0].isnan(), reference.stem_pool(x, affine)[0].isnan())


def test_infinities_have_a_mean():
    x = _x(2, 3, 4, 4)
    x[0, 1, 0, 0] = torch.inf
    mean, m2 = triton.bn_statistics(x)
    assert mean[1] == torch.inf and m2[1].isnan() and torch.isfinite(mean[[0, 2]]).all()


@pytest.mark.parametrize("size", [(0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)])
def test_nothing_to_do(size):
    x, C = torch.empty(size), size[1]
    affine = torch.ones(4, C)
    assert triton.bn_apply(x, affine, True).shape == x.shape
    assert torch.equal(triton.bn_backward_reduce(x, x, x, affine, True), torch.zeros(2, C))
    assert triton.bn_backward_apply(x, None, x, affine, True, torch.ones(2, C)).shape == x.shape
    assert torch.equal(triton.bn_statistics(x), torch.zeros(2, C))


def test_arguments_of_the_wrong_size_are_refused():
    x, affine = _x(2, 3, 4, 4), torch.ones(4, 3)
    with pytest.raises(ValueError, match="expected 4D input"):
        triton.bn_statistics(x[0])
    with pytest.raises(RuntimeError, match=r"affine should have size \[4, 3\], but got \[4, 2\]"):
        triton.bn_apply(x, affine[:, :2], True)
    with pytest.raises(RuntimeError, match="expected affine to have dtype torch.float32"):
        triton.bn_apply(x, affine.double(), True)
    with pytest.raises(RuntimeError, match="out should have size"):
        triton.bn_backward_reduce(x, x[:1], x, affine, True)
    with pytest.raises(RuntimeError, match="expected x to be given"):
        triton.bn_backward_reduce(x, None, None, None, True)
