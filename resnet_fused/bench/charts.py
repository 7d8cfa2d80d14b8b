"""Charts of the report, drawn by matplotlib as inline SVG.

Text, axes and whiskers take the page's text colour (`currentColor`), so that the charts follow light and dark.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from typing import Sequence

from .requirements import require

COLOURS = {"ours": "#2a8fbd", "peer": "#8c96a5"}  # legible on white and on black
INK = "#010203"  # stands for the page's text colour
WIDTH = 8.4  # inches
ROW_HEIGHT = 0.3
SCALE_HEIGHT = 0.28  # below the rows, for the scale


@dataclass(frozen=True)
class Row:
    """One line of a chart: a value, its spread if it has one, and the text that names both."""

    label: str
    value: float
    text: str
    kind: str = "peer"
    low: float | None = None
    high: float | None = None


class _Chart:
    """A horizontal chart with a row's label on the left and its text on the right."""

    def __init__(self, rows: Sequence[Row], scale: float = SCALE_HEIGHT) -> None:
        figure = require("matplotlib.figure", "matplotlib", "the report's charts")
        self.rows = rows
        height = ROW_HEIGHT * len(rows) + scale
        self.figure = figure.Figure(figsize=(WIDTH, height))
        self.axes = self.figure.add_axes((0.2, scale / height, 0.56, 1 - scale / height))
        self.axes.set_ylim(len(rows) - 0.4, -0.6)
        self.axes.set_yticks(range(len(rows)), [row.label for row in rows])
        self.axes.tick_params(colors=INK, labelsize=9, length=0)
        for side in self.axes.spines.values():
            side.set_visible(False)
        for y, row in enumerate(rows):
            self.axes.annotate(row.text, (1.02, y), xycoords=("axes fraction", "data"), va="center", size=9, color=INK)

    def colours(self) -> list[str]:
        return [COLOURS[row.kind] for row in self.rows]

    def whiskers(self) -> None:
        for y, row in enumerate(self.rows):
            if row.low is not None and row.high is not None:
                errors = [[row.value - row.low], [row.high - row.value]]
                self.axes.errorbar([row.value], [y], xerr=errors, color=INK, capsize=3, linewidth=1)

    def points(self) -> None:
        self.axes.scatter([row.value for row in self.rows], range(len(self.rows)), c=self.colours(), s=36, zorder=3)

    def rule(self, value: float) -> None:
        self.axes.axvline(value, color=INK, linestyle="--", linewidth=1)

    def svg(self) -> str:
        rc_context = require("matplotlib", "matplotlib", "the report's charts").rc_context
        buffer = io.StringIO()
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "resnet_fused", "font.family": "sans-serif"}):
            self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        # Within a page, SVG needs neither its description nor its namespaces.
        text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
        text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :])
        return text.replace(INK, "currentColor")


def bars(rows: Sequence[Row]) -> str:
    """Horizontal bars from zero, with whiskers where a row has a spread; "" without rows."""
    if not rows:
        return ""
    chart = _Chart(rows, scale=0)
    chart.axes.barh(range(len(rows)), [row.value for row in rows], height=0.55, color=chart.colours())
    chart.whiskers()
    chart.axes.set_xticks([])  # the rows' texts say it all
    return chart.svg()


def ratios(rows: Sequence[Row]) -> str:
    """Points with whiskers on a scale from zero, and a line at 1: right of it is faster; "" without rows."""
    if not rows:
        return ""
    chart = _Chart(rows)
    chart.whiskers()
    chart.points()
    chart.rule(1.0)
    chart.axes.set_xlim(left=0)
    return chart.svg()


def logarithmic(rows: Sequence[Row], bound: float | None = None) -> str:
    """Points on a logarithmic scale of whole decades; `bound` is drawn as a line that nobody may pass.

    "" without rows, and where there is nothing but zeros.
    """
    positive = [value for value in (*(row.value for row in rows), bound) if value]
    if not rows or not positive:
        return ""
    chart = _Chart(rows)
    chart.axes.set_xscale("log")
    bottom = math.floor(math.log10(min(positive)))
    chart.axes.set_xlim(10.0**bottom, 10.0 ** max(bottom + 1, math.ceil(math.log10(max(positive)))))
    chart.axes.minorticks_off()
    chart.points()
    if bound:
        chart.rule(bound)
    return chart.svg()
