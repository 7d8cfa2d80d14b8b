"""Which backend runs a unit: asked for, measured, or chosen by rule; always with a reason.

    choose.py        the choice, a pure function
    measurement.py   how units are timed, and when that may be done
    tuned.py         measured times, in a file between processes
    machine.py       what else they depend on
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import Callable, Hashable

import torch

from resnet_fused import _ext, backends
from resnet_fused.dispatch.choose import (
    AUTO,
    DTYPES,
    EAGER,
    BackendUnavailable,
    Choice,
    candidates,
    check_name,
    choose,
)
from resnet_fused.dispatch.machine import describe, settings
from resnet_fused.dispatch.measurement import may_measure, measure, under_saved_tensor_hooks
from resnet_fused.dispatch.tuned import TunedTable

__all__ = ["AUTO", "DTYPES", "EAGER", "BackendUnavailable", "Choice", "backend", "choose", "choose_for",
           "choose_shared", "measuring", "set_winograd", "situation", "table_path"]  # fmt: skip

MEASURE = ("auto", "always", "never", "again")


def _measure_from_environment() -> str:
    value = os.environ.get("RESNET_FUSED_MEASURE", "auto")
    if value not in MEASURE[:3]:
        raise ValueError(f"RESNET_FUSED_MEASURE must be auto, always or never, but got {value!r}")
    return value


_log = logging.getLogger("resnet_fused")
_requested = os.environ.get("RESNET_FUSED_BACKEND", AUTO)
_measure = _measure_from_environment()
_unavailable = backends.available()
_table = TunedTable()
_choices: dict[Hashable, Choice] = {}  # of problems looked up before
_forgotten = 0  # times that they were dropped
_trial = threading.local()  # .backend: the candidate that this thread is timing


def choose_for(
    x: torch.Tensor,
    problem: Callable[[], Hashable] | None = None,
    trial: Callable[[], Callable[[], object] | None] | None = None,
) -> Choice:
    """choose() for the unit that is about to run on x, by what was asked for and what was measured.

    `problem()` says all that the unit's time depends on, `str` of it for the tuning cache; `trial()` gives a function
    that runs the unit once and leaves no trace, or None where it cannot be run alone. Measured times are taken from the
    tuning cache. What is not in it is measured on a GPU at first use, on a CPU only within measuring("always").
    """
    requested = getattr(_trial, "backend", None) or _requested
    device, dtype = x.device.type, x.dtype
    traced = torch.compiler.is_compiling() or any(isinstance(size, torch.SymInt) for size in x.shape)
    if requested != AUTO or problem is None or traced or not _consults(device):
        return choose(device, dtype, requested, _unavailable)
    # A checkpoint runs a unit again in the backward pass, and must meet the choice that its forward pass made.
    key = (current := settings(x.device), described := problem(), hooked := under_saved_tensor_hooks())
    if (known := _choices.get(key)) is not None:
        return known
    machine, name = describe(current), str(described)
    times = None if _measure == "again" else _table.times(machine, name)
    if measures(device) and may_measure(x):
        wanted = candidates(device, dtype, _unavailable, first_use=_measure == "auto")
        lacking = times is None or (_measure == "always" and not times.keys() >= set(wanted))
        if lacking and trial is not None and (run := trial()) is not None:
            times = _timed(x.device, wanted, run) or None
            if times is not None:  # some candidate had memory enough
                _table.record(machine, name, times)
    choice = choose(device, dtype, AUTO, _unavailable, times)
    if times is not None or hooked or not measures(device):
        _choices[key] = choice
    return choice


def choose_shared(x: torch.Tensor) -> Choice:
    """The choice for a unit that shares its batch's statistics with other processes, each of which calls this.

    All must come to the same, since eager PyTorch and we tell each other different things: so nothing that was measured
    counts.
    """
    return choose(x.device.type, x.dtype, _requested, _unavailable, shared=True)


def situation(x: torch.Tensor) -> Hashable:
    """What choose_for(x, …) goes by besides the problem and x: while it is equal, so are the choices that were made."""
    requested = getattr(_trial, "backend", None) or _requested
    if not _consults(x.device.type):
        return requested
    return requested, settings(x.device), under_saved_tensor_hooks(), _forgotten


def table_path() -> Path:
    """Where measured times are kept."""
    return _table.path


def measures(device: str) -> bool:
    """Whether units are measured when they first run on the device."""
    return _measure in ("always", "again") or (_measure == "auto" and device == "cuda")


def _consults(device: str) -> bool:
    """Whether anything was or will be measured for the device; else there is nothing to look up."""
    return device in ("cpu", "cuda") and (measures(device) or bool(_table))


def _timed(device: torch.device, wanted: tuple[str, ...], run: Callable[[], object]) -> dict[str, float]:
    def on(name: str):
        def call():
            _trial.backend, benchmark = name, torch.backends.cudnn.benchmark
            # Where this is set Triton's tilings are measured, each of which is compiled: too long unasked.
            torch.backends.cudnn.benchmark |= name == "triton" and _measure != "auto"
            try:
                run()
            finally:
                _trial.backend, torch.backends.cudnn.benchmark = None, benchmark

        return call

    def synchronize():
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    _log.info("measuring %s on a unit that is new to %s", ", ".join(wanted), device.type)
    return measure({name: on(name) for name in wanted}, synchronize)


@contextlib.contextmanager
def measuring(mode: str):
    """While open, units that run are measured: "always" where the tuning cache lacks them, "again" all, "never" none."""
    global _measure, _forgotten
    if mode not in MEASURE:
        raise ValueError(f"unknown mode {mode!r}; expected one of {', '.join(MEASURE)}")
    previous, _measure, _forgotten = _measure, mode, _forgotten + 1
    _choices.clear()
    try:
        yield
    finally:
        _measure, _forgotten = previous, _forgotten + 1
        _choices.clear()


@contextlib.contextmanager
def backend(name: str):
    """Runs fused modules on the named backend: "auto", "eager", "reference", "cpu", "cuda", "triton" or "library".

    "library" convolves by PyTorch's own libraries (cuDNN, oneDNN), with our passes around them. Holds for the whole
    process while the context is open. A backend that cannot serve raises BackendUnavailable when a module is called;
    an unknown name raises ValueError at once.
    """
    global _requested
    check_name(name)
    previous, _requested = _requested, name
    try:
        yield
    finally:
        _requested = previous


def set_winograd(enabled: bool) -> None:
    """Whether the CPU engine may use Winograd's algorithm for 3×3 convolutions of stride 1; it may at first.

    y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ x B)]A computes 4×4 outputs with 36 multiplications instead of 144, here at the points 0,
    ±5/8, ±3/2, ∞. Its float32 rounding errors are up to 8 times those of the direct sum, which is what runs without.
    Holds for the whole process. Lavin & Gray 2016 (Fast Algorithms for Convolutional Neural Networks), section 4.1.
    """
    _ext.set_winograd(enabled)
