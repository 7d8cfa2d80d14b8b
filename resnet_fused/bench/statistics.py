"""Median and spread of repeated rounds, and ratios of contenders paired by round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence


@dataclass(frozen=True)
class Spread:
    """Median with the 20th and 80th percentile."""

    median: float
    p20: float
    p80: float


def percentile(values: Sequence[float], fraction: float) -> float:
    """Percentile by linear interpolation between order statistics (numpy's default)."""
    if not values:
        raise ValueError("a percentile needs at least one value")
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    if position == below or ordered[above] == ordered[below]:
        return ordered[below]  # also keeps infinities: inf - inf would be NaN
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def spread(values: Sequence[float]) -> Spread:
    """Median, p20 and p80 of at least one value."""
    return Spread(percentile(values, 0.5), percentile(values, 0.2), percentile(values, 0.8))


def throughput(seconds: Sequence[float], images: int) -> Spread:
    """Images per second over steps of ``images`` images."""
    return spread([images / s for s in seconds])


def paired_speedup(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How many times faster ``ours`` is than ``theirs``, both in seconds, paired round by round.

    Pairing takes out what slows a whole round down, such as another program on the machine.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"rounds do not pair up: {len(ours)} against {len(theirs)}")
    return spread([b / a for a, b in zip(ours, theirs)])
