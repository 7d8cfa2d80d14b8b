"""Measuring candidates against each other, and when that may be done."""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Callable, Mapping

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from resnet_fused.dispatch.choose import EAGER

WARM_UP = 2  # calls of each candidate before any is timed: kernels are loaded, memory is there, weights are packed
MIN_ROUNDS, MAX_ROUNDS = 3, 15
SECONDS = 1.0  # of timing, after which no further round is begun


def measure(candidates: Mapping[str, Callable[[], object]], synchronize: Callable[[], object]) -> dict[str, float]:
    """Median milliseconds of each candidate, in alternating rounds.

    One that runs out of memory is left out, and so, with a warning, is one of ours that fails otherwise: the unit can
    still run. What eager raises is the caller's.
    """
    alive = dict(candidates)

    def timed(name: str) -> float | None:
        try:
            start = time.perf_counter()
            alive[name]()
            synchronize()
            return 1e3 * (time.perf_counter() - start)
        except torch.OutOfMemoryError:
            del alive[name]
        except Exception as error:
            if name == EAGER:
                raise
            warnings.warn(f"{name} failed on a unit and is left out of its measurement: {error!r}", stacklevel=2)
            del alive[name]
        return None

    for _ in range(WARM_UP):
        for name in list(alive):
            timed(name)
    times: dict[str, list[float]] = {name: [] for name in alive}
    end = time.perf_counter() + SECONDS
    for done in range(MAX_ROUNDS):
        if done >= MIN_ROUNDS and time.perf_counter() > end:
            break
        for name in list(alive):
            took = timed(name)
            if took is not None:
                times[name].append(took)
    return {name: statistics.median(times[name]) for name in alive}


def under_saved_tensor_hooks() -> bool:
    """As in a checkpoint's forward pass, and where its backward pass repeats it."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def may_measure(x: torch.Tensor) -> bool:
    """Whether running a unit several times now disturbs nothing: no graph capture, transform, checkpoint or fake
    tensor, and nobody asked for deterministic algorithms."""
    return not (
        torch.compiler.is_compiling()
        or torch.are_deterministic_algorithms_enabled()
        or type(x) not in (torch.Tensor, torch.nn.Parameter)
        or _get_current_dispatch_mode() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or under_saved_tensor_hooks()
        or (x.device.type == "cuda" and torch.cuda.is_current_stream_capturing())
    )
