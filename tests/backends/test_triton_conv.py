"""The Triton convolutions on a machine without a GPU: their PTX by the emulator, their sources by the interpreter."""

import contextlib
import functools
from pathlib import Path

import pytest
import torch
import triton_emulated
from conv_checks import TILES, check_integers, check_oracle
from emulator.library import SCHEDULES
from operator_cases import make_case
from problems import CONVS, ConvProblem
from tolerance import assert_bit_equal

from resnet_fused import ops

pytest.importorskip("triton")

from resnet_fused.backends import triton  # noqa: E402
from resnet_fused.backends.triton import conv, conv_plan, launch, tuning  # noqa: E402
from resnet_fused.backends.triton.conv_plan import Device, Tiling  # noqa: E402

reference = ops.get("reference")
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
    triton_emulated.OPERATORS.tf32 = allowed
    try:
        yield
    finally:
        triton_emulated.OPERATORS.tf32 = False


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


@contextlib.contextmanager
def tiling_of(monkeypatch, *tilings):
    """Instead of the smallest tiles, which small problems have."""
    with monkeypatch.context() as patch:
        patch.setattr(conv, "tilings", lambda *_: tilings)
        yield


@pytest.mark.slow
@triton_emulated.needs_emulator
@pytest.mark.parametrize("mode", ["fprop_prologue", "backward_everything"])
def test_large_tiles(mode, monkeypatch):
    """Two rows and two columns of tiles, of which the last are cut; more warps; two steps of the pipeline at least."""
    problem = ConvProblem("large", 2, 144, 9, 8, 160, 1, 1)
    with tiling_of(monkeypatch, Tiling(128, 128, 32, 8, 3)):
        check(problem, mode, "float16")


@pytest.mark.slow
@triton_emulated.needs_emulator
@pytest.mark.parametrize("mode", ["fprop_prologue", "backward_everything"])
def test_wide_offsets(mode, monkeypatch):
    monkeypatch.setattr(conv, "offsets_are_wide", lambda shape: True)
    check(WHOLE_S2, mode, "float16")


@triton_emulated.needs_emulator
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("mode", EVERYTHING)
def test_every_schedule_writes_the_same(mode, schedule, emulated, poison):
    """With memory poisoned, copies that land as late as they may, and warps, lanes and programs in any order."""
    case = draw_case(mode, WHOLE, torch.float16, False)
    copies = case.mapped(torch.clone)
    results = []
    for seed in range(2):
        emulated.set_schedule(schedule, seed)
        results.append(case.run(triton_emulated.OPERATORS))
    emulated.set_schedule("random", 0)
    for a, b in zip(*results):
        assert not a.isnan().any()
        assert_bit_equal(a, b)
    for mine, before in zip(case.arguments, copies.arguments):
        if isinstance(mine, torch.Tensor):
            assert_bit_equal(mine, before)


@triton_emulated.needs_emulator
def test_splits_are_merged_in_one_order(monkeypatch):
    """Many splits, and the same bits whichever of their programs comes first."""
    problem = ConvProblem("splits", 2, 32, 20, 20, 48, 3, 3, padding=(1, 1))
    launches, real = [], conv.launch_conv_wgrad

    def recorded(c, tiling, *rest):
        launches.append((c, tiling))
        real(c, tiling, *rest)

    monkeypatch.setattr(conv, "launch_conv_wgrad", recorded)
    case = draw_case("wgrad", problem, torch.float16)
    check_integers(triton_emulated.OPERATORS, case, torch.float16)
    (c, tiling), *_ = launches
    assert conv_plan.plan_wgrad(c.shape, tiling, c.device).splits == 3
    rounded = draw_case("wgrad", problem, torch.float16, False)
    assert_bit_equal(*(rounded.run(triton_emulated.OPERATORS)[0] for _ in range(2)))


def _run(mode, problem, dtype, replace):
    """The case's results with some of its arguments replaced."""
    case = draw_case(mode, problem, dtype)
    arguments = list(case.arguments)
    for position, value in replace.items():
        arguments[position] = value(arguments[position].clone())
    return case._replace(arguments=tuple(arguments)).run(triton_emulated.OPERATORS)


def _with(values):
    def change(tensor):
        for position, value in values.items():
            tensor[position] = value
        return tensor

    return change


@triton_emulated.needs_emulator
def test_nan_passes_relu_and_its_gradient():
    nan = torch.nan
    y, stats = _run("fprop_prologue", WHOLE, torch.float16, {0: _with({(0, 7, 3, 4): nan})})
    window = torch.zeros(9, 7, dtype=torch.bool)
    window[2:5, 3:6] = True
    assert y[0].isnan().eq(window).all() and not y[1].isnan().any() and stats.isnan().all()
    # out = NaN is not <= 0, so its gradient passes; a NaN that is masked does not.
    grad, out = _with({(0, 5, 3, 4): nan, (1, 5, 3, 4): nan}), _with({(0, 5, 3, 4): nan, (1, 5, 3, 4): 0.0})
    dx, dw, sums = _run("backward_everything", WHOLE, torch.float16, {0: grad, 1: out})
    assert dx[0].isnan().eq(window).all() and not dx[1].isnan().any()
    assert dw[5].isnan().all() and not dw[:5].isnan().any() and not dw[6:].isnan().any()


@triton_emulated.needs_emulator
def test_variance_survives_a_large_mean():
    """E[x²] − E[x]² would lose all of it: 1e4² has no float32 digits left for a variance of 1e-2."""
    generator = torch.Generator().manual_seed(0)
    x = (1e4 + 0.1 * torch.randn(3, 16, 9, 11, generator=generator)).contiguous(memory_format=LAST)
    weight = torch.eye(16).view(16, 16, 1, 1)
    arguments = (x, weight, (1, 1), (0, 0), (1, 1), 1, None, False, True, None, None, None, False)
    y, (mean, m2) = triton_emulated.OPERATORS.conv_fprop(*arguments)
    assert_bit_equal(y, x)
    truth = x.double().var((0, 2, 3), correction=0) * (3 * 9 * 11)
    # The deviations from a tile's mean are exact; √n·eps of their sum of squares remains, n = 297.
    torch.testing.assert_close(m2.double(), truth, rtol=18 * 1.2e-7, atol=0)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=2**-23, atol=0)


@triton_emulated.needs_emulator
def test_tf32_where_pytorch_allows_it():
    case = draw_case("fprop", WHOLE, torch.float32, False)
    with tf32(True):
        y = case.run(triton_emulated.OPERATORS)[0]
    truth = case.double().run(reference)[0]
    # Operands are cut to 11 bits: products are off by 2 * 2^-10, a sum of 288, each of size 1, by 17 times that.
    assert (y - truth).abs().max() <= 4 * 17 * 2**-9
    assert (y - truth).abs().max() > 2**-15  # float32's own error is a hundredth of it


def _kernels(call):
    """The names of the kernels that an operator launches, none of which runs."""
    names = []
    with launch.replaced(lambda kernel, *_: names.append(kernel.__name__)):
        call()
    return names


@pytest.mark.parametrize("mode, expected", [
    ("fprop", ["conv_fprop"]),
    ("fprop_prologue", ["conv_fprop", "conv_statistics"]),
    ("fprop_residual_affine", ["conv_fprop"]),
    ("backward_everything", ["conv_dgrad", "conv_sums", "conv_wgrad"]),
    ("dgrad", ["conv_dgrad", "conv_sums"]),
    ("backward_dx", ["conv_dgrad"]),
    ("wgrad", ["conv_wgrad"]),
    ("backward_nothing", []),
])  # fmt: skip
def test_what_is_launched(mode, expected):
    """Everything around a convolution is in its kernel; sums over tiles and splits are merged in a second one."""
    names = _kernels(lambda: draw_case(mode, WHOLE, torch.float16).run(triton))
    assert [name.removesuffix("_kernel") for name in names] == expected


def test_the_tiling_that_was_measured_runs(monkeypatch, tmp_path):
    """The operator asks its device's table, and measures whole launches: all outputs of all of a tiling's kernels."""
    tuner = tuning.Tuner("Test GPU", folder=tmp_path, shipped=tmp_path)
    monkeypatch.setattr(conv, "device_of", lambda device: (Device(80, 108, 163 << 10), "Test GPU"))
    monkeypatch.setattr(conv, "tuner", {"Test GPU": tuner}.__getitem__)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    fastest, measured, launched = (64, 64, 32), [], []

    def seconds_of(run, device):
        launched.clear()
        run()
        measured.append([kernel for kernel, _ in launched])
        return 1.0 if launched[0][1] == fastest else 2.0

    def record(kernel, grid, arguments, options):
        launched.append((kernel.__name__, tuple(options.get(name) for name in ("BLOCK_M", "BLOCK_N", "BLOCK_K"))))

    monkeypatch.setattr(tuning, "seconds_of", seconds_of)
    case = draw_case("fprop_prologue", ConvProblem("tuned", 8, 64, 28, 28, 128, 3, 3, (1, 1), (1, 1)), torch.float16)
    with launch.replaced(record):
        case.run(triton)
        assert len(measured) > 2
        assert all(kernels == ["conv_fprop_kernel", "conv_statistics_kernel"] for kernels in measured)
        count = len(measured)
        launched.clear()
        case.run(triton)
    assert len(measured) == count and launched[0] == ("conv_fprop_kernel", fastest)
    assert [tuple(t[:3]) for t in tuning.read_table(tuner.path, "Test GPU").values()] == [fastest]


@pytest.mark.parametrize("dtype, layout", [(torch.float64, LAST), (torch.float32, torch.contiguous_format)], ids=str)
def test_what_the_library_convolves(dtype, layout):
    for mode in EVERYTHING:
        case = make_case(mode, WHOLE, dtype, layout)
        assert not any(name.startswith("conv") for name in _kernels(lambda case=case: case.run(triton)))


@triton_emulated.needs_emulator
def test_traffic(emulated):
    """What a kernel reads and writes at least once is its tensors and no more; shared memory has no bank conflicts.

    Beside the tensors: rows of constants for each channel that is read, and of partial sums for each of the 4 tiles.
    """
    p, half = WHOLE, torch.float16
    x, y = (p.N * p.H * p.W * channels * half.itemsize for channels in (p.C, p.K))
    w, row_x, row_y = p.K * p.C * p.R * p.S * half.itemsize, 4 * p.C, 4 * p.K
    draw = 3 * y + 5 * row_y  # grad, out, raw; mean, scale, invstd, means
    expected = {
        "fprop_prologue": {"conv_fprop": (x + w + 3 * row_x, y + 4 * 3 * row_y)},
        "fprop_residual_affine": {"conv_fprop": (x + w + y + 6 * row_y, y)},
        "backward_everything": {
            "conv_dgrad": (draw + w + 3 * x + 3 * row_x, x + 4 * 2 * row_x),  # add, add_out, x
            "conv_wgrad": (draw + x + 3 * row_x, w),
        },
    }
    for mode, kernels in expected.items():
        case = draw_case(mode, p, half, False)
        with emulated.library.counting() as read:
            case.run(triton_emulated.OPERATORS)
            found = {counts["name"].partition("_kernel")[0]: counts for counts in read().values()}
        for name, (bytes_read, bytes_written) in kernels.items():
            counts = found[name]
            assert (counts["bytes_read"], counts["bytes_written"]) == (bytes_read, bytes_written), name
            assert counts["stores"]["sectors"] == counts["stores"]["sectors_needed"], name
            assert counts["shared"]["bank_conflicts"] == 0, name


@triton_emulated.needs_emulator
def test_memory_formats_mixed():
    """A contiguous weight: its gradient is like it, the rest is channels_last."""
    case = draw_case("backward", WHOLE, torch.float16)
    weight = case.arguments[7].contiguous()
    mixed = case._replace(arguments=(*case.arguments[:7], weight, *case.arguments[8:]))
    dx, dw, _ = mixed.run(triton_emulated.OPERATORS)
    assert dw.is_contiguous() and dx.is_contiguous(memory_format=LAST)
    for a, b in zip((dx, dw), case.run(triton_emulated.OPERATORS)):
        assert_bit_equal(a, b)
