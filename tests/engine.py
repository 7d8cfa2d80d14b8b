"""The CPU engine's switches, for tests: which algorithm a case runs, and contexts that force one."""

import contextlib

import torch
from problems import ConvProblem
from tolerance import DIRECT, WINOGRAD

from resnet_fused import _ext

_cpu = _ext._cpu


def algorithm(problem: ConvProblem, dtype) -> str:
    """"winograd", "direct", "depthwise" or "library": what runs this problem with the switches as they are."""
    p = problem
    weight = [p.K, p.C // p.groups, p.R, p.S]
    name = str(dtype).removeprefix("torch.")
    return _cpu.conv_algorithm([p.N, p.C, p.H, p.W], weight, p.stride, p.padding, p.dilation, p.groups, name)


def factor(problem: ConvProblem, dtype) -> int:
    return WINOGRAD if algorithm(problem, dtype) == "winograd" else DIRECT


@contextlib.contextmanager
def engine(use):
    """"always": our own algorithms wherever they can, so that the table tests them all; "never": the library's."""
    _cpu.set_engine_for_testing(use)
    try:
        yield
    finally:
        _cpu.set_engine_for_testing("auto")


@contextlib.contextmanager
def winograd(enabled):
    before = _cpu.winograd()
    _cpu.set_winograd(enabled)
    try:
        yield
    finally:
        _cpu.set_winograd(before)


@contextlib.contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
