"""Charts as inline SVG with positions in percent: they follow the page's width while their text keeps its size.

Colours and text sizes come from the page's style sheet through the classes ``ours``, ``peer`` and ``control``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Callable, Sequence

ROW_HEIGHT = 26
MARGIN = 2.0  # percent left free on either side of the largest value


@dataclass(frozen=True)
class Row:
    """One line of a chart: a value, its spread if it has one, and the text that names both."""

    label: str
    value: float
    text: str
    kind: str = "peer"
    low: float | None = None
    high: float | None = None


def _percent(fraction: float) -> str:
    return f"{100 * min(1.0, max(0.0, fraction)):.2f}%"


def _line(row: Row, drawing: str) -> str:
    svg = f'<svg class="{row.kind}" width="100%" height="{ROW_HEIGHT}" aria-hidden="true">{drawing}</svg>'
    return (
        f'<div class="row"><span class="label">{escape(row.label)}</span>{svg}'
        f'<span class="value">{escape(row.text)}</span></div>'
    )


def _whisker(row: Row, place: Callable[[float], float]) -> str:
    if row.low is None or row.high is None:
        return ""
    low, high, middle = _percent(place(row.low)), _percent(place(row.high)), ROW_HEIGHT / 2
    caps = "".join(f'<line x1="{x}" x2="{x}" y1="{middle - 4}" y2="{middle + 4}"/>' for x in (low, high))
    return f'<g class="whisker"><line x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>{caps}</g>'


def bars(rows: Sequence[Row]) -> str:
    """Horizontal bars from zero, with whiskers where a row has a spread."""
    largest = max((row.high or row.value for row in rows), default=1.0) or 1.0

    def place(value: float) -> float:
        return value / largest * (1 - MARGIN / 100)

    return "".join(
        _line(row, f'<rect x="0" y="5" height="{ROW_HEIGHT - 10}" width="{_percent(place(row.value))}" rx="2"/>'
              + _whisker(row, place))
        for row in rows
    )


def ratios(rows: Sequence[Row]) -> str:
    """Points with whiskers on a scale from zero, and a line at 1: right of it is faster."""
    largest = max([row.high or row.value for row in rows] + [1.0]) * (1 + 2 * MARGIN / 100)

    def place(value: float) -> float:
        return value / largest

    one = _percent(place(1.0))
    rule = f'<line class="rule" x1="{one}" x2="{one}" y1="0" y2="{ROW_HEIGHT}"/>'
    return "".join(
        _line(row, rule + _whisker(row, place)
              + f'<circle cx="{_percent(place(row.value))}" cy="{ROW_HEIGHT / 2}" r="4.5"/>')
        for row in rows
    )


def logarithmic(rows: Sequence[Row], bound: float | None = None) -> str:
    """Points on a logarithmic scale of whole decades; ``bound`` is drawn as a line that nobody may pass."""
    positive = [value for value in [*(row.value for row in rows), bound] if value]
    if not positive:
        return ""
    bottom = math.floor(math.log10(min(positive)))
    top = max(bottom + 1, math.ceil(math.log10(max(positive))))

    def place(value: float) -> float:
        inner = 1 - 2 * MARGIN / 100
        return MARGIN / 100 + inner * (math.log10(value) - bottom) / (top - bottom) if value > 0 else 0.0

    grid = "".join(
        f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{ROW_HEIGHT}"/>'
        for x in (_percent(place(10.0**decade)) for decade in range(bottom, top + 1))
    )
    if bound:
        limit = _percent(place(bound))
        grid += f'<line class="rule" x1="{limit}" x2="{limit}" y1="0" y2="{ROW_HEIGHT}"/>'
    lines = [
        _line(row, f'{grid}<circle cx="{_percent(place(row.value))}" cy="{ROW_HEIGHT / 2}" r="4.5"/>') for row in rows
    ]
    axis = f'<div class="axis"><span>1e{bottom}</span><span>1e{top}</span></div>'
    return "".join(lines) + f'<div class="row"><span class="label"></span>{axis}<span class="value"></span></div>'
