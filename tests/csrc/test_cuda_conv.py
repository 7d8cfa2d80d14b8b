"""The CUDA convolutions' kernels and launchers, run by the emulator, against the reference backend."""

import functools
import re

import pytest
import torch
from conv_checks import CONV_MODES, TILES, check_integers, check_oracle
from cuda_conv import CudaConvolutions
from emulator.library import SCHEDULES
from operator_cases import make_case
from problems import CONVS, ConvProblem
from tolerance import assert_bit_equal

CHANNELS_LAST = torch.channels_last
# Sized for the CPU's caches and threads, and three quarters of all products; to a kernel they are more of the same, and
# many_tiles is more than they are.
CPU_SIZES = ("wino_blocks", "wino_shared", "wino_deep", "many_strips")
PROBLEMS = [p for p in (*CONVS, *TILES) if p.id not in CPU_SIZES]
EVERYDAY = ("stem", "3x3_s2", "odd_channels", "pieces", "pieces_s2", "pieces_groups", "pixels_unread")
EVERYDAY_MODES = ("fprop_prologue", "fprop_residual_affine", "backward_everything", "backward_bn")
DTYPES = {"bfloat16": (torch.bfloat16, False), "float16": (torch.float16, False), "tf32": (torch.float32, True),
          "float32": (torch.float32, False)}  # fmt: skip


def _everyday(values, everyday, name=lambda value: value):
    return [
        pytest.param(value, id=name(value), marks=() if name(value) in everyday else pytest.mark.slow)
        for value in values
    ]


problems = pytest.mark.parametrize("problem", _everyday(PROBLEMS, EVERYDAY, lambda p: p.id))
# How a result is rounded does not depend on which pixels and taps it sums; on integers all are exact.
ROUNDED = [p for p in PROBLEMS if p in TILES or p.id in EVERYDAY]
modes = pytest.mark.parametrize("mode", _everyday(CONV_MODES, EVERYDAY_MODES))
dtypes = pytest.mark.parametrize("dtype", DTYPES)


@functools.lru_cache
def draw_case(mode, problem, dtype, integer):
    return make_case(mode, problem, dtype, CHANNELS_LAST, integer)


@problems
@modes
@dtypes
def test_integers(cuda_conv_library, problem, mode, dtype):
    dtype, tf32 = DTYPES[dtype]
    convolutions = CudaConvolutions(cuda_conv_library, tf32)
    check_integers(convolutions, draw_case(mode, problem, dtype, True), dtype)


@pytest.mark.parametrize("problem", _everyday(ROUNDED, EVERYDAY, lambda p: p.id))
@modes
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_against_float64(cuda_conv_library, problem, mode, dtype):
    dtype, _ = DTYPES[dtype]
    check_oracle(CudaConvolutions(cuda_conv_library), draw_case(mode, problem, dtype, False), dtype)


LARGE, MIDDLE, _, SMALL = range(4)  # TileChoice
WIDE = ConvProblem("wide", 1, 72, 9, 8, 136, 3, 3, (1, 1), (1, 1))
STRIDED = ConvProblem("strided", 2, 72, 9, 8, 40, 3, 3, (2, 2), (1, 1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("problem", [WIDE, STRIDED], ids=lambda p: p.id)
@pytest.mark.parametrize("multiprocessors", [1, 16, 1000])
@pytest.mark.parametrize("shared_bytes", [99 << 10, 227 << 10])
def test_every_tile_and_pipeline(cuda_conv_library, problem, dtype, multiprocessors, shared_bytes):
    """Large tiles where they leave no multiprocessor idle, small ones elsewhere; 3 or 4 stages."""
    dtype, tf32 = DTYPES[dtype]
    convolutions = CudaConvolutions(cuda_conv_library, tf32, multiprocessors, shared_bytes)
    for mode in ("fprop_prologue", "backward_everything"):
        check_integers(convolutions, draw_case(mode, problem, dtype, True), dtype)
    fprop, dgrad, wgrad = convolutions.plans
    assert all(plan.vector and plan.shared_bytes <= shared_bytes for plan in convolutions.plans)
    if multiprocessors == 1000 or dtype == torch.float32 and not tf32:
        assert fprop.tile == dgrad.tile == SMALL
    elif multiprocessors == 1:
        assert fprop.tile == (LARGE if problem is WIDE else MIDDLE) and dgrad.tile == LARGE
        # dgrad copies three tensors for its first operand, 32 KiB a stage.
        assert fprop.stages == 4 and dgrad.stages == 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("problem", [WIDE, STRIDED], ids=lambda p: p.id)
def test_every_schedule(cuda_conv_library, problem, schedule, seed):
    """Copies that land as late as they may, warps that run ahead, lanes and blocks in random orders."""
    cuda_conv_library.set_schedule(schedule, seed)
    try:
        for mode in ("fprop_prologue", "backward_everything"):
            case = draw_case(mode, problem, torch.float16, True)
            check_integers(CudaConvolutions(cuda_conv_library), case, torch.float16)
    finally:
        cuda_conv_library.set_schedule("random")


# Two problems for each pass, of which the second has twice the reduction and as many tiles.
LONGER = {
    "fprop_prologue": (ConvProblem("short", 1, 64, 8, 16, 128, 1, 1), ConvProblem("long", 1, 128, 8, 16, 128, 1, 1)),
    "dgrad": (ConvProblem("short", 1, 128, 8, 16, 64, 1, 1), ConvProblem("long", 1, 128, 8, 16, 128, 1, 1)),
    "wgrad": (ConvProblem("short", 1, 128, 8, 8, 128, 1, 1), ConvProblem("long", 1, 128, 8, 16, 128, 1, 1)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", LONGER)
def test_main_loop_has_no_bank_conflicts(cuda_conv_library, mode, dtype):
    """There are as many in a longer one: those of the epilogue."""
    dtype, tf32 = DTYPES[dtype]
    conflicts = []
    for problem in LONGER[mode]:
        convolutions = CudaConvolutions(cuda_conv_library, tf32)
        case = draw_case(mode, problem, dtype, False)
        with cuda_conv_library.counting() as counts:
            case.run(convolutions)
            (kernel,) = (c for c in counts().values() if f"conv_{mode[:5]}_kernel" in c["name"])
        conflicts.append(kernel["shared"]["bank_conflicts"])
    assert conflicts[0] == conflicts[1]


@pytest.mark.parametrize("mode", ["fprop_residual_affine", "backward_everything"])
def test_addresses_that_are_no_multiple_of_16(cuda_conv_library, mode):
    problem = next(p for p in TILES if p.id == "pieces_s2")

    case = draw_case(mode, problem, torch.bfloat16, True)
    convolutions = CudaConvolutions(cuda_conv_library, offset=1)
    check_integers(convolutions, case, torch.bfloat16)
    assert not any(plan.vector for plan in convolutions.plans)


def test_nan_passes_relu_and_its_gradient(cuda_conv_library):
    problem = next(p for p in TILES if p.id == "pieces")
    convolutions = CudaConvolutions(cuda_conv_library)
    convolutions.all_written = False
    case = draw_case("fprop_prologue", problem, torch.float16, True)
    x = case.arguments[0].clone()
    x[0, 7, 3, 4] = torch.nan
    y, stats = case._replace(arguments=(x, *case.arguments[1:])).run(convolutions)
    window = torch.zeros(9, 11, dtype=torch.bool)
    window[2:5, 3:6] = True
    assert y[0].isnan().eq(window).all() and not y[1].isnan().any() and stats.isnan().all()

    case = draw_case("backward_everything", problem, torch.float16, True)
    grad, out = case.arguments[0].clone(), case.arguments[1].clone()
    grad[0, 5, 3, 4], out[0, 5, 3, 4] = torch.nan, torch.nan  # not <= 0, so it passes
    grad[1, 5, 3, 4], out[1, 5, 3, 4] = torch.nan, 0.0  # a NaN that is masked
    dx, dw, sums = case._replace(arguments=(grad, out, *case.arguments[2:])).run(convolutions)
    assert dx[0].isnan().eq(window).all() and not dx[1].isnan().any()
    assert dw[5].isnan().all() and not dw[:5].isnan().any() and not dw[6:].isnan().any()


def test_variance_survives_a_large_mean(cuda_conv_library):
    """E[x²] − E[x]² would lose all of it: 1e4² has no float32 digits left for a variance of 1e-2."""
    generator = torch.Generator().manual_seed(0)
    x = (1e4 + 0.1 * torch.randn(3, 8, 9, 11, generator=generator)).contiguous(memory_format=CHANNELS_LAST)
    weight = torch.eye(8).view(8, 8, 1, 1)
    arguments = (x, weight, (1, 1), (0, 0), (1, 1), 1, None, False, True, None, None, None, False)
    y, (mean, m2) = CudaConvolutions(cuda_conv_library).conv_fprop(*arguments)
    assert_bit_equal(y, x)
    truth = x.double().var((0, 2, 3), correction=0) * (3 * 9 * 11)
    # The deviations from a tile's mean are exact; √n·eps of their sum of squares remains, n = 297.
    torch.testing.assert_close(m2.double(), truth, rtol=18 * 1.2e-7, atol=0)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=2**-23, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_split_sums(cuda_conv_library, dtype):
    """Of pixels over blocks, where there are multiprocessors for them: exact, and the same in each run."""
    dtype, tf32 = DTYPES[dtype]
    problem = ConvProblem("many", 2, 16, 20, 20, 24, 3, 3, (1, 1), (1, 1))
    convolutions = CudaConvolutions(cuda_conv_library, tf32, multiprocessors=100)
    check_integers(convolutions, draw_case("wgrad", problem, dtype, True), dtype)
    assert convolutions.plans[0].splits > 2
    case = draw_case("wgrad", problem, dtype, False)
    assert_bit_equal(*(case.run(convolutions)[0] for _ in range(2)))


def test_no_images(cuda_conv_library):
    problem = ConvProblem("none", 0, 8, 6, 6, 16, 3, 3)
    convolutions = CudaConvolutions(cuda_conv_library)
    y, stats = draw_case("fprop_statistics", problem, torch.float16, True).run(convolutions)
    assert y.shape == (0, 16, 4, 4) and stats.eq(0).all()
    dx, dw, sums = draw_case("backward_everything", problem, torch.float16, True).run(convolutions)
    assert dx.shape == (0, 8, 6, 6) and dw.eq(0).all() and sums.eq(0).all()


@pytest.mark.parametrize(
    "size, rows, dtype, reason",
    [
        ((2, 8, 9, 9), 3, torch.float64, "float64"),
        ((2**12, 8, 2**10, 2**10), 3, torch.float16, "2^30 pixels"),
        ((1, 2**17, 2**7, 2**7), 3, torch.float16, "2^31 elements"),
        ((2, 8, 40, 9), 33, torch.float16, "32 rows"),
        ((2, 8, 40, 9), 32, torch.float16, None),
        ((2, 8, 9, 9), 3, torch.float16, None),
    ],
)
def test_why_a_problem_is_not_served(cuda_conv_library, size, rows, dtype, reason):
    x = torch.empty(size, dtype=dtype, device="meta")
    weight = torch.empty(16, size[1], rows, 3, dtype=dtype, device="meta")
    found = CudaConvolutions(cuda_conv_library).unsupported(x, weight, (1, 1), (1, 1), (1, 1), 1)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize("mode", ["fprop_prologue", "backward_everything"])
def test_the_longest_filters(cuda_conv_library, mode):
    """Of as many taps as a word has bits, in either direction."""
    for problem in (ConvProblem("tall", 1, 8, 35, 3, 16, 32, 1, (1, 1), (16, 0)),
                    ConvProblem("wide", 1, 8, 3, 35, 16, 1, 32, (1, 2), (0, 16))):  # fmt: skip
        case = draw_case(mode, problem, torch.float16, True)
        check_integers(CudaConvolutions(cuda_conv_library), case, torch.float16)


POINTWISE = ConvProblem("pointwise", 2, 72, 9, 8, 136, 1, 1)
NARROW = ConvProblem("narrow", 3, 136, 9, 8, 40, 1, 1)  # wgrad has few rows
# Of whole chunks of 64, of chunks that end within a tap, and of several images with pixels that are not read.
CHUNKS = ConvProblem("chunks", 1, 128, 6, 7, 192, 3, 3, (1, 1), (1, 1))
HALVES = ConvProblem("halves", 1, 96, 7, 6, 72, 3, 2, (1, 1), (1, 1), (1, 2))
STEPS = ConvProblem("steps", 3, 64, 9, 11, 128, 1, 1, (2, 2))
WARPGROUPS = [WIDE, STRIDED, POINTWISE, NARROW, CHUNKS, HALVES, STEPS]


@pytest.mark.parametrize("dtype", [pytest.param("bfloat16", marks=pytest.mark.slow), "float16"])
@pytest.mark.parametrize("problem", WARPGROUPS, ids=lambda p: p.id)
@pytest.mark.parametrize("shared_bytes", [99 << 10, 227 << 10])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warpgroups(cuda_conv_library, schedule, problem, dtype, shared_bytes):
    """Products by wgmma, in all tiles that it has, with what is formed on the way; long chunks if they are of one tap."""
    dtype, tf32 = DTYPES[dtype]
    convolutions = CudaConvolutions(cuda_conv_library, tf32, 1, shared_bytes, wgmma=True)
    cuda_conv_library.set_schedule(schedule, 0)
    with cuda_conv_library.counting() as counts:
        for mode in ("fprop_prologue", "fprop_residual_affine", "backward_everything", "backward_reduce_linear"):
            check_integers(convolutions, draw_case(mode, problem, dtype, True), dtype)
        kernels = [c["name"] for c in counts().values() if re.search("conv_[fdw]", c["name"])]
    assert all("Sm90" in name for name in kernels)
    *_, dgrad, wgrad, plain_dgrad, plain_wgrad = convolutions.plans
    assert convolutions.plans[0].long_chunks == (problem.C % 64 == 0)
    assert plain_dgrad.long_chunks == (problem.K % 64 == 0)
    assert plain_wgrad.long_chunks and not dgrad.long_chunks and not wgrad.long_chunks  # three tensors are copied
    assert {"LongChunks" in name for name in kernels} == {True, False}


# Two problems for each pass, of whole tiles, of which the second has twice the reduction in long chunks.
LONGER_CHUNKS = {
    "fprop": ("fprop_prologue", [ConvProblem("longer", 1, C, 8, 16, 128, 1, 1) for C in (128, 256)]),
    "dgrad": ("backward_reduce_linear", [ConvProblem("longer", 1, 128, 8, 16, K, 1, 1) for K in (128, 256)]),
    "wgrad": ("backward_reduce_linear", [ConvProblem("longer", 1, 128, 8, W, 128, 3, 3, (1, 1), (1, 1))
                                         for W in (8, 16)]),
}


@pytest.mark.parametrize("which", LONGER_CHUNKS)
def test_long_chunks_have_no_bank_conflicts(cuda_conv_library, which):
    """There are as many in a longer main loop: those of the epilogue."""
    conflicts, (mode, problems) = [], LONGER_CHUNKS[which]
    for problem in problems:
        with cuda_conv_library.counting() as counts:
            case = draw_case(mode, problem, torch.bfloat16, False)
            case.run(CudaConvolutions(cuda_conv_library, shared_bytes=227 << 10, wgmma=True))
            (kernel,) = (c for c in counts().values() if f"conv_{which}_kernel" in c["name"])
        assert "LongChunks" in kernel["name"]
        conflicts.append(kernel["shared"]["bank_conflicts"])
    assert conflicts[0] == conflicts[1]


@pytest.mark.parametrize(
    "size, filters, taps, splits",
    [((256, 14), 256, 3, 7), ((1024, 14), 256, 1, 16), ((512, 7), 512, 3, 2), ((64, 56), 64, 1, 262)],
)
def test_splits_fill_the_multiprocessors(cuda_conv_library, size, filters, taps, splits):
    """Of ResNet-50's layers at batch 128, on an H100: a block too many would take as long as one on each of them."""
    C, H = size
    x = torch.empty(128, C, H, H, dtype=torch.bfloat16, device="meta")
    weight = torch.empty(filters, C, taps, taps, dtype=torch.bfloat16, device="meta")
    convolutions = CudaConvolutions(cuda_conv_library, multiprocessors=132, shared_bytes=227 << 10, wgmma=True)
    plan = convolutions.wgrad_plan(x, weight, (1, 1), (taps // 2, taps // 2), (1, 1), 1)
    tiles, chunks = plan.row_tiles * plan.column_tiles, 128 * H * H // 64
    assert plan.long_chunks and plan.splits == splits and plan.splits * plan.split_chunks >= chunks
    busiest = -(-tiles * plan.splits // 132) * plan.split_chunks
    assert busiest <= 1.4 * tiles * chunks / 132
