"""Contenders that take turns, and what their times say beside the machine's limits."""

from __future__ import annotations

import time
from dataclasses import asdict
from statistics import median
from typing import Callable, Mapping, Sequence

import torch

from resnet_fused.bench.statistics import paired_speedup

COPY_BYTES = 256 * 2**20  # beyond any last-level cache
WARM_UPS = 2  # inference packs its weights in the second call with the same ones


def seconds(function: Callable) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def copy_bandwidth() -> float:
    """GB/s of tensor.copy_ on torch's threads (bytes read plus bytes written), best of five, in this very run."""
    source = torch.zeros(COPY_BYTES // 4)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * COPY_BYTES / min(seconds(lambda: target.copy_(source)) for _ in range(5)) / 1e9


def warm_up(contenders: Mapping[str, Callable]) -> float:
    """Seconds of the last round before any is counted."""
    for _ in range(WARM_UPS):
        last = sum(seconds(function) for function in contenders.values())
    return last


def take_turns(contenders: Mapping[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender by round. Each round begins with another one, so that none always follows the same."""
    names, times = list(contenders), {name: [] for name in contenders}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            times[name].append(seconds(contenders[name]))
    return times


def faster(times: Mapping[str, Sequence[float]]) -> str:
    """Torch's better layout."""
    return min((name for name in times if name != "ours"), key=lambda name: median(times[name]))


def speedup(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Ours against torch's better layout: median, p20 and p80 of the ratios of each round."""
    return asdict(paired_speedup(times["ours"], times[faster(times)]))


def summary(values: Sequence[float]) -> dict[str, float]:
    """Milliseconds: median and extremes."""
    return {name: round(1e3 * of(values), 4) for name, of in (("median", median), ("min", min), ("max", max))}
