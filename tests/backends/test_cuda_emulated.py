"""The CUDA operators, their kernels run by the emulator, against the reference: exact, oracle, and what they write."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import cuda_emulated
import guarded
import pytest
import torch
from checks import check_integers, check_memory_format, check_oracle, check_what_is_written, for_each
from operator_cases import DTYPES, FORMATS, MODES, make_case
from problems import CONVS, ConvProblem

from resnet_fused import ops

pytestmark = cuda_emulated.needs_emulator

KERNELS = [mode for mode in MODES if not mode.startswith(("fprop", "dgrad", "wgrad", "backward", "chain"))]
KERNELS += ["backward_apply", "backward_apply_relu", "backward_apply_out"]
# Operators of several launches: a convolution with everything around it.
CONVOLUTIONS = [mode for mode in MODES if mode not in KERNELS]
EXACT = [mode for mode in MODES if not mode.startswith(("statistics", "finalize", "chain"))]


def _pointwise(N, C, H, W):
    return ConvProblem(f"{N}x{C}x{H}x{W}", N, C, H, W, C, 1, 1)


# Vectors and single elements, several tiles of channels, several chunks of rows, planes of several segments, one pixel.
SHAPES = [
    _pointwise(2, 16, 8, 8),
    _pointwise(3, 5, 7, 9),
    _pointwise(2, 264, 5, 4),
    _pointwise(1, 3, 70, 90),
    _pointwise(9, 24, 33, 16),
    _pointwise(5, 40, 1, 1),
]
# A thread has 8 rows, two unrolled steps of the most loads at a time.
MANY_ROWS = _pointwise(1, 17, 174, 170)
# Channels last they are ours (csrc/test_cuda_conv.py has the whole table), contiguous the library's.
PROBLEMS = [p for p in CONVS if p.id in ("stem", "odd_channels", "groups", "ragged")]


@pytest.fixture(scope="module")
def emulated():
    return cuda_emulated.load()


@pytest.fixture
def kernels(emulated):
    emulated.set_schedule("random", 0)
    return torch.ops.resnet_fused_emulated


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", SHAPES, ids=lambda p: p.id)
def test_kernels_against_float64(problem, layout, dtype, kernels):
    for_each(KERNELS, lambda mode: check_oracle(make_case(mode, problem, DTYPES[dtype], FORMATS[layout]), kernels))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", SHAPES[:3], ids=lambda p: p.id)
def test_kernels_on_integers(problem, layout, dtype, kernels):
    def check(mode):
        case = make_case(mode, problem, DTYPES[dtype], FORMATS[layout], integer=True)
        check_integers(case, kernels, DTYPES[dtype], rounds_between=False)

    for_each([mode for mode in KERNELS if mode in EXACT], check)


@pytest.mark.parametrize("mode", ["statistics", "apply_residual_affine", "reduce_two", "backward_apply_relu"])
def test_unrolled_steps(mode, kernels):
    check_oracle(make_case(mode, MANY_ROWS, torch.float32, torch.channels_last), kernels)


@pytest.mark.parametrize("mode", CONVOLUTIONS)
@pytest.mark.parametrize("dtype", [d if d == "float32" else pytest.param(d, marks=pytest.mark.slow) for d in DTYPES])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.id)
def test_convolutions_against_float64(problem, layout, dtype, mode, kernels):
    check_oracle(make_case(mode, problem, DTYPES[dtype], FORMATS[layout]), kernels)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("schedule", ["random", "latest"])
def test_what_is_written(schedule, layout, mode, emulated, kernels, poison):
    emulated.set_schedule(schedule, 1)
    problem = next(p for p in CONVS if p.id == "ragged")
    case = make_case(mode, problem, torch.float32, FORMATS[layout])
    check_what_is_written(case, kernels)
    check_memory_format(case, kernels)


@pytest.mark.slow
def test_nothing_beside_tensors():
    """Neither read nor written, workspaces included. In a process of its own: redzones are around all its tensors."""
    path, problems = cuda_emulated.build_library(guarded=True), [p for p in PROBLEMS if p.id in ("ragged", "groups")]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        assert process.submit(guarded.first_damage, path, problems).result() is None


def _kernels_of(emulated, case, kernels):
    with emulated.counting() as read:
        results = case.run(kernels)
        return results, {counts["name"] for counts in read().values()}


@pytest.mark.parametrize("mode", ["fprop_residual_affine", "fprop_prologue", "backward_everything"])
def test_library_composite(mode, emulated, kernels):
    """The other way to run a convolution, with the same prologues and epilogues around it."""
    case = make_case(mode, PROBLEMS[1], torch.float32, torch.channels_last)
    composite = torch.ops.resnet_fused_emulated_library
    check_oracle(case, composite)
    assert not any("conv_" in name for name in _kernels_of(emulated, case, composite)[1])
    assert any("conv_" in name for name in _kernels_of(emulated, case, kernels)[1])


@pytest.mark.parametrize("channels, filled", [(2, False), (3, True), (7, True), (9, False)])
@pytest.mark.parametrize("layout", FORMATS)
def test_channels_fill_a_piece(layout, channels, filled, emulated, kernels):
    """Those of images are padded with zeros to 16 bytes, prologue and all, unless that were most of the products."""
    problem = ConvProblem("images", 2, channels, 10, 12, 16, 5, 5, (2, 2), (2, 2))
    for mode, kernel in (("fprop_prologue", "fprop"), ("wgrad", "wgrad"), ("backward_everything", "wgrad")):
        case = make_case(mode, problem, torch.float16, FORMATS[layout])
        check_oracle(case, kernels)
        if layout == "nhwc":
            (name,) = {n for n in _kernels_of(emulated, case, kernels)[1] if f"conv_{kernel}_kernel" in n}
            assert ("true>" in name) == filled, name  # the last argument: copies in pieces


def test_tf32_where_pytorch_allows_it(emulated, kernels):
    problem = next(p for p in CONVS if p.id == "3x3")
    case = make_case("fprop", problem, torch.float32, torch.channels_last)
    emulated.functions.set_tf32(1)
    try:
        (y, _), names = _kernels_of(emulated, case, kernels)
    finally:
        emulated.functions.set_tf32(0)
    assert any("MathTf32" in name for name in names)
    truth = case.double().run(ops.get("reference"))[0]
    # Operands keep 11 bits: products are off by 2 * 2^-11, a sum of 144 of them, each of size 1, by 12 times that.
    assert (y - truth).abs().max() <= 4 * 12 * 2**-10
    assert (y - truth).abs().max() > 2**-15  # float32's own error is a hundredth of it


@pytest.fixture
def hopper(emulated):
    """Convolutions multiply by wgmma, and those of filters larger than 1x1 have their operands formed in memory."""
    emulated.functions.set_hopper(1)
    yield
    emulated.functions.set_hopper(0)


WARPGROUPS = [
    ConvProblem("wide_3x3", 1, 72, 9, 8, 136, 3, 3, (1, 1), (1, 1)),
    ConvProblem("strided", 2, 136, 9, 8, 40, 3, 3, (2, 2), (1, 1)),
    ConvProblem("wide_1x1", 2, 72, 9, 8, 136, 1, 1),
    ConvProblem("groups", 1, 144, 9, 8, 160, 3, 3, (1, 1), (1, 1), groups=2),
]


@pytest.mark.parametrize("mode", CONVOLUTIONS)
@pytest.mark.parametrize("dtype", [pytest.param("bfloat16", marks=pytest.mark.slow), "float16"])
@pytest.mark.parametrize("problem", WARPGROUPS, ids=lambda p: p.id)
def test_warpgroups(problem, dtype, mode, hopper, emulated, kernels):
    case = make_case(mode, problem, DTYPES[dtype], torch.channels_last)
    check_oracle(case, kernels)
    names = {name for name in _kernels_of(emulated, case, kernels)[1] if "conv_" in name and "_kernel" in name}
    products = {name for name in names if any(f"conv_{which}" in name for which in ("fprop", "dgrad", "wgrad"))}
    assert all("Sm90" in name for name in products) and (products or mode == "backward_nothing")


def test_where_operands_are_formed(hopper, emulated, kernels):
    for problem, expected in ((WARPGROUPS[0], True), (WARPGROUPS[2], False)):
        case = make_case("fprop_prologue", problem, torch.float16, torch.channels_last)
        assert any("bn_apply" in name for name in _kernels_of(emulated, case, kernels)[1]) == expected
