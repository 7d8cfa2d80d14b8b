"""How the Triton convolutions cut a problem into tiles: pure functions, and their table of measured tilings."""

import json
import math
import random

import pytest
import torch
from problems import CONVS

pytest.importorskip("triton")

from resnet_fused.backends.triton import conv_plan, tuning  # noqa: E402
from resnet_fused.backends.triton.conv_plan import ConvShape, Device, Tiling  # noqa: E402

A100, H100, B200 = Device(80, 108, 163 << 10), Device(90, 132, 227 << 10), Device(100, 148, 227 << 10)
DEVICES = {"A100": A100, "H100": H100, "B200": B200, "RTX 4090": Device(89, 128, 99 << 10),
           "RTX 5090": Device(120, 170, 99 << 10)}  # fmt: skip
KINDS = ("fprop", "dgrad", "wgrad")


def shape_of(p) -> ConvShape:
    return ConvShape(p.N, p.C, p.H, p.W, p.K, p.R, p.S, *p.output, p.stride, p.padding, p.dilation, p.groups)


def layer(N, C, size, K, kernel, stride=1) -> ConvShape:
    out = (size - 1) // stride + 1
    pad = (kernel // 2,) * 2
    return ConvShape(N, C, size, size, K, kernel, kernel, out, out, (stride, stride), pad, (1, 1), 1)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("math_name", conv_plan.TILINGS)
def test_tilings_fit_the_device(math_name, kind, name):
    """Whatever the problem: within shared memory, no spills, at least one, and none twice."""
    device = DEVICES[name]
    for shape in [*map(shape_of, CONVS), layer(256, 64, 56, 256, 1), layer(1, 2048, 7, 512, 3)]:
        for tensors in (1, 2, 3):
            found = conv_plan.tilings(kind, math_name, shape, device, tensors)
            assert found and len(set(found)) == len(found)
            for tiling in found:
                assert conv_plan.shared_bytes(math_name, tiling, tensors) <= device.shared_bytes
                assert (kind, math_name, tiling, device.architecture // 10) not in conv_plan.SPILLING
                assert tiling.block_k <= 32 or device in (H100, B200)


def test_the_guess_is_the_largest_tile_that_keeps_the_device_busy():
    large, small = layer(256, 64, 56, 256, 1), layer(1, 64, 7, 64, 1)
    assert conv_plan.tilings("fprop", "half", large, A100, 1)[0][:2] == (128, 128)
    assert conv_plan.tilings("fprop", "half", small, A100, 1)[0] == conv_plan.TILINGS["half"][-1]
    # 64 channels of the result fill half of 128 columns.
    assert conv_plan.tilings("fprop", "half", layer(256, 64, 56, 64, 3), A100, 1)[0][:2] == (128, 64)
    assert conv_plan.tilings("fprop", "half", large, H100, 1)[0].block_k == 64


@pytest.mark.parametrize("problem", CONVS, ids=lambda p: p.id)
@pytest.mark.parametrize("kind", KINDS)
def test_programs_cover_the_result_once(kind, problem):
    shape = shape_of(problem)
    for tiling in (Tiling(32, 32, 16, 4, 2), Tiling(128, 64, 32, 4, 3)):
        grid = conv_plan.PLANS[kind](shape, tiling, A100)
        assert grid.programs == (grid.row_tiles * grid.column_tiles, shape.groups, grid.splits)
        if kind == "fprop":
            rows, columns = shape.N * shape.P * shape.Q, shape.group_K
        elif kind == "dgrad":
            sh, sw = shape.stride
            rows = shape.N * math.ceil(shape.H / sh) * math.ceil(shape.W / sw)
            assert grid.row_tiles % (sh * sw) == 0
            grid = grid._replace(row_tiles=grid.row_tiles // (sh * sw))
            columns = shape.group_C
        else:
            rows, columns = shape.group_K, None
            pixels, step = shape.N * shape.P * shape.Q, grid.split_steps * tiling.block_k
            assert (grid.splits - 1) * step < pixels <= grid.splits * step  # every split has pixels
        assert (grid.row_tiles - 1) * tiling.block_m < rows <= grid.row_tiles * tiling.block_m
        if columns:
            assert (grid.column_tiles - 1) * tiling.block_n < columns <= grid.column_tiles * tiling.block_n


def test_wgrad_is_split_until_the_device_is_busy():
    grid = conv_plan.plan_wgrad(layer(32, 64, 56, 64, 1), Tiling(64, 64, 32, 4, 3), A100)
    assert 200 <= grid.splits <= 216 and grid.split_steps >= conv_plan.MIN_SPLIT_STEPS
    assert conv_plan.plan_wgrad(layer(1, 64, 7, 64, 1), Tiling(64, 64, 32, 4, 3), A100).splits == 1


def _offsets(s: ConvShape, block: int):
    """The extreme offsets of the kernels' formulas, pixel by pixel: of x or dx, of y or draw."""
    for m in range(s.N * s.P * s.Q + block):
        n, p, q = m // (s.P * s.Q), m // s.Q % s.P, m % s.Q
        yield (m + 1) * s.K
        for r, t in ((0, 0), (s.R - 1, s.S - 1)):
            h = p * s.stride[0] - s.padding[0] + r * s.dilation[0]
            v = q * s.stride[1] - s.padding[1] + t * s.dilation[1]
            yield ((n * s.H + h) * s.W + v + 1) * s.C
    rows, columns = math.ceil(s.H / s.stride[0]), math.ceil(s.W / s.stride[1])
    for m in range(s.N * rows * columns + block):
        n, i, j = m // (rows * columns), m // columns % rows, m % columns
        yield ((n * s.H + s.stride[0] * i + s.stride[0]) * s.W + s.stride[1] * j + s.stride[1]) * s.C
        for r, t in ((0, 0), (s.R - 1, s.S - 1)):
            p = (s.stride[0] - 1 + s.padding[0] - r * s.dilation[0]) // s.stride[0] + i
            q = (s.stride[1] - 1 + s.padding[1] - t * s.dilation[1]) // s.stride[1] + j
            yield ((n * s.P + p) * s.Q + q + 1) * s.K


@pytest.mark.parametrize("seed", range(20))
def test_int32_offsets_are_proven(seed):
    draw = random.Random(seed)
    while True:
        stride, padding, dilation = ([draw.randint(low, 3) for _ in range(2)] for low in (1, 0, 1))
        (H, W), (R, S) = [draw.randint(1, 12) for _ in range(2)], [draw.randint(1, 4) for _ in range(2)]
        P, Q = ((h + 2 * p - d * (r - 1) - 1) // s + 1
                for h, p, d, r, s in zip((H, W), padding, dilation, (R, S), stride))  # fmt: skip
        if min(P, Q) >= 1:
            break
    shape = ConvShape(draw.randint(1, 3), 8, H, W, 16, R, S, P, Q, tuple(stride), tuple(padding), tuple(dilation), 1)
    assert max(map(abs, _offsets(shape, 128))) <= conv_plan.largest_offset(shape)


def test_wide_offsets_begin_at_2_to_31():
    assert not conv_plan.offsets_are_wide(layer(256, 256, 56, 64, 1))  # 2e8 elements
    assert not conv_plan.offsets_are_wide(layer(2000, 256, 64, 64, 1))  # 2.10e9
    assert conv_plan.offsets_are_wide(layer(2048, 256, 64, 64, 1))  # 2^31
    assert conv_plan.offsets_are_wide(layer(1, 32768, 8, 32768, 2))  # weights of 2^32


@pytest.mark.parametrize(
    "change, reason",
    [({}, None), ({"N": 2**31}, "2^30"), ({"groups": 65536}, "groups"), ({"N": 2**29, "C": 2**12}, "tiles")],
)
def test_why_a_problem_is_not_served(change, reason):
    found = conv_plan.unsupported(layer(8, 64, 14, 64, 3)._replace(**change))
    assert found is None if reason is None else reason in found


TABLE = {"fprop half 1x64x7x7 64x1x1": Tiling(64, 64, 32, 4, 3)}
CANDIDATES = conv_plan.TILINGS["half"]
KEY = next(iter(TABLE))


class Clock:
    """Seconds by tiling, and what was asked."""

    def __init__(self, best):
        self.best, self.asked = best, []

    def __call__(self, tiling):
        self.asked.append(tiling)
        return 1.0 if tiling == self.best else 2.0


@pytest.fixture
def benchmark_flag():
    torch.backends.cudnn.benchmark = True
    yield
    torch.backends.cudnn.benchmark = False


def _tuner(folder, shipped=None):
    return tuning.Tuner("Test GPU", folder=folder, shipped=shipped or folder / "none")


def test_measures_where_cudnn_would_and_remembers(tmp_path, benchmark_flag):
    clock = Clock(best=CANDIDATES[3])
    assert _tuner(tmp_path).choose(KEY, CANDIDATES, clock) == CANDIDATES[3]
    assert clock.asked == list(CANDIDATES)
    again = Clock(best=CANDIDATES[0])
    assert _tuner(tmp_path).choose(KEY, CANDIDATES, again) == CANDIDATES[3] and not again.asked
    torch.backends.cudnn.benchmark = False  # what is known is used all the same
    assert _tuner(tmp_path).choose(KEY, CANDIDATES, again) == CANDIDATES[3] and not again.asked


def test_guesses_without_benchmark(tmp_path):
    clock = Clock(best=CANDIDATES[3])
    assert _tuner(tmp_path).choose(KEY, CANDIDATES, clock) == CANDIDATES[0] and not clock.asked
    assert not list(tmp_path.iterdir())


def test_deterministic_mode_neither_measures_nor_believes_a_file(tmp_path, benchmark_flag):
    _tuner(tmp_path).choose(KEY, CANDIDATES, Clock(best=CANDIDATES[3]))
    torch.use_deterministic_algorithms(True)
    try:
        clock = Clock(best=CANDIDATES[3])
        assert _tuner(tmp_path).choose(KEY, CANDIDATES, clock) == CANDIDATES[0] and not clock.asked
    finally:
        torch.use_deterministic_algorithms(False)


def test_nothing_is_measured_while_a_graph_is_captured(tmp_path, benchmark_flag, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    clock = Clock(best=CANDIDATES[3])
    assert _tuner(tmp_path).choose(KEY, CANDIDATES, clock) == CANDIDATES[0] and not clock.asked


def test_a_shipped_table_replaces_the_guess(tmp_path):
    tuning.write_table(tmp_path / "shipped" / tuning.file_name("Test GPU"), "Test GPU", TABLE)
    tuner = _tuner(tmp_path / "own", shipped=tmp_path / "shipped")
    assert tuner.choose(KEY, CANDIDATES, Clock(None)) == TABLE[KEY]
    assert tuner.choose("another", CANDIDATES, Clock(None)) == CANDIDATES[0]
    assert tuner.choose(KEY, CANDIDATES[:2], Clock(None)) == CANDIDATES[0]  # of this problem it is no candidate


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace("Test GPU", "Another GPU"),
        lambda text: text.replace(tuning.kernels_version(), "0" * 16),
        lambda text: text.replace("64", "65"),
        lambda text: text.replace("half", "quarter"),
        lambda text: json.dumps(json.loads(text) | {"tilings": {KEY: [1, 2]}}),
        lambda text: json.dumps(json.loads(text) | {"tilings": {"": None}}),
    ],
)
def test_a_file_that_is_not_ours_is_ignored_with_one_warning(tmp_path, spoil, benchmark_flag):
    path = tmp_path / tuning.file_name("Test GPU")
    tuning.write_table(path, "Test GPU", TABLE)
    assert tuning.read_table(path, "Test GPU") == TABLE
    path.write_text(spoil(path.read_text()))
    tuner = _tuner(tmp_path)
    with pytest.warns(UserWarning, match="is ignored") as caught:
        assert tuner.choose(KEY, CANDIDATES, Clock(best=CANDIDATES[1])) == CANDIDATES[1]
        tuner.choose("another half", CANDIDATES, Clock(best=CANDIDATES[1]))
    assert len(caught) == 1
    assert tuning.read_table(path, "Test GPU")[KEY] == CANDIDATES[1]  # and replaced


def test_processes_add_to_the_same_file(tmp_path, benchmark_flag):
    first, second = _tuner(tmp_path), _tuner(tmp_path)
    first.choose(KEY, CANDIDATES, Clock(CANDIDATES[1]))
    assert second.measured.get(KEY) == CANDIDATES[1]
    third = _tuner(tmp_path)
    third.choose("a half", CANDIDATES, Clock(CANDIDATES[2]))
    second.choose("b half", CANDIDATES, Clock(CANDIDATES[3]))
    found = tuning.read_table(first.path, "Test GPU")
    assert found == {KEY: CANDIDATES[1], "a half": CANDIDATES[2], "b half": CANDIDATES[3]}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [first.path.name, f"{first.path.name}.lock"]  # no partial files


def test_a_folder_that_cannot_be_written(tmp_path, benchmark_flag):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="not kept"):
        assert _tuner(tmp_path / "file").choose(KEY, CANDIDATES, Clock(CANDIDATES[1])) == CANDIDATES[1]


def test_keys_tell_problems_apart():
    shape = layer(8, 64, 14, 64, 3)
    changes = ({}, {"stride": (2, 1)}, {"padding": (0, 1)}, {"dilation": (2, 2)}, {"N": 9}, {"groups": 2})
    keys = {tuning.key_of(kind, math_name, shape._replace(**change), variant)
            for kind in KINDS for math_name in conv_plan.TILINGS for change in changes
            for variant in ("", "prologue")}  # fmt: skip
    assert len(keys) == 3 * len(conv_plan.TILINGS) * len(changes) * 2
