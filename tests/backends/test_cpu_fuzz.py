"""Random convolutions with random prologues, epilogues, types and views against float64."""

from contextlib import nullcontext
from typing import NamedTuple

import engine
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from operator_cases import DTYPES, FORMATS, MODES, make_case
from problems import ConvProblem
from tolerance import assert_oracle, rounded_terms

from resnet_fused import ops

CONV_MODES = [m for m in MODES if m.startswith(("fprop", "backward", "dgrad", "wgrad")) and not m.startswith("backward_apply")]
VIEWS = ("dense", "rows", "columns", "channels", "middle", "expanded")
# Axes in the order of memory: of parameters as modules have them, and of those of transposed convolutions.
WEIGHT_ORDERS = ((0, 1, 2, 3), (0, 2, 3, 1), (1, 0, 2, 3), (2, 3, 0, 1), (3, 1, 2, 0))


class Setting(NamedTuple):
    mode: str
    dtype: str
    layout: str
    view: str
    weight_order: tuple
    threads: int
    winograd: bool


SETTINGS = st.builds(
    Setting, st.sampled_from(CONV_MODES), st.sampled_from(list(DTYPES)), st.sampled_from(list(FORMATS)),
    st.sampled_from(VIEWS), st.sampled_from(WEIGHT_ORDERS), st.sampled_from((1, 1, 2, 3)), st.booleans(),
)  # fmt: skip


@st.composite
def any_convolution(draw):
    groups = draw(st.sampled_from((1, 1, 1, 2, 3, 5)))
    C, K = (groups * draw(st.integers(1, 40 // groups)) for _ in range(2))
    axes = []
    for _ in range(2):
        kernel, dilation = draw(st.integers(1, 7)), draw(st.integers(1, 3))
        size, padding = draw(st.integers(1, 24)), draw(st.integers(0, 6))
        assume(size + 2 * padding >= dilation * (kernel - 1) + 1)
        axes.append((size, kernel, draw(st.integers(1, 4)), padding, dilation))
    (H, W), (R, S), stride, padding, dilation = zip(*axes)
    return ConvProblem("any", draw(st.integers(1, 5)), C, H, W, K, R, S, stride, padding, dilation, groups)


@st.composite
def winograd_convolution(draw):
    C, K = (draw(st.integers(16, 70)) for _ in range(2))
    size = tuple(draw(st.integers(6, 34)) for _ in range(2))
    padding = tuple(draw(st.integers(0, 4)) for _ in range(2))
    problem = ConvProblem("winograd", draw(st.integers(1, 4)), C, *size, K, 3, 3, (1, 1), padding)
    with engine.winograd(True):
        assume(engine.algorithm(problem, torch.float32) == "winograd")
    return problem


def _viewed(view, t):
    """The same values as a view of something larger, full of NaN elsewhere; of one image repeated for "expanded"."""
    if t.dim() != 4 or view == "dense":
        return t
    if view == "expanded":
        return t[:1].expand(t.shape)
    N, C, H, W = t.shape
    size, index = {
        "rows": ((N, C, 2 * H, W), (..., slice(None, None, 2), slice(None))),
        "columns": ((N, C, H, W + 3), (..., slice(2, -1))),
        "channels": ((N, 2 * C + 1, H, W), (slice(None), slice(1, None, 2))),
        "middle": ((N + 2, C, H, W), (slice(1, -1),)),
    }[view]
    last = t.is_contiguous(memory_format=torch.channels_last)
    larger = torch.full(size, torch.nan if t.is_floating_point() else 0, dtype=t.dtype)
    larger = larger.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    larger[index] = t
    return larger[index]


def _reordered(weight, order):
    inverse = [order.index(axis) for axis in range(4)]
    return weight.permute(order).contiguous().permute(inverse)


def _check(problem, setting):
    case = make_case(setting.mode, problem, DTYPES[setting.dtype], FORMATS[setting.layout])
    position = 1 if case.operator == "conv_fprop" else 7
    arguments = [_viewed(setting.view, a) if isinstance(a, torch.Tensor) else a for a in case.arguments]
    assert case.arguments[position].shape == (problem.K, problem.C // problem.groups, problem.R, problem.S)
    arguments[position] = _reordered(case.arguments[position], setting.weight_order)
    case = case._replace(arguments=tuple(arguments))
    reference, dtype = ops.get("reference"), DTYPES[setting.dtype]
    with engine.winograd(setting.winograd), engine.threads(setting.threads):
        factor = engine.factor(problem, dtype)
        ours = case.run(ops.get("cpu"))
    rounded = dtype.itemsize == 2
    # oneDNN crashes on some dilated convolutions in 16 bits; without it torch has loops of its own.
    with torch.backends.mkldnn.flags(enabled=False) if rounded else nullcontext():
        theirs = case.run(reference)
    truth = case.double().run(reference)
    # A few numbers may all cancel to nothing, and the largest error among few is itself random: errors are compared
    # with the terms, which are of size 1. In 16 bits an intermediate sum is rounded, of √length such terms.
    terms = case.length**0.5 if rounded else 1.0
    for i, (a, b, c) in enumerate(zip(ours, theirs, truth)):
        stored = max(rounded_terms(case, ours[0], c), torch.finfo(dtype).eps / 2) if rounded else 0.0
        name = f"{problem} {setting} result {i}"
        assert_oracle(a, b, c, case.length, name, terms=terms, stored=stored, factor=factor)


def _settings(examples):
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )  # fmt: skip


@_settings(60)
@given(any_convolution(), SETTINGS)
def test_any(problem, setting):
    _check(problem, setting)


@_settings(30)
@given(winograd_convolution(), SETTINGS)
def test_winograd(problem, setting):
    _check(problem, setting)


@pytest.mark.slow
@_settings(1500)
@given(any_convolution(), SETTINGS)
def test_any_long(problem, setting):
    _check(problem, setting)


@pytest.mark.slow
@_settings(500)
@given(winograd_convolution(), SETTINGS)
def test_winograd_long(problem, setting):
    _check(problem, setting)
