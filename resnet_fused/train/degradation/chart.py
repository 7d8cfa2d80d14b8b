"""The figure of the experiment: training and test errors against iterations, and at the end against depth.

After He et al. 2016, figure 6 (left and middle: thin dashes are training errors, thick lines test errors) and figure 1.
"""

from __future__ import annotations

import io
import statistics
from typing import Any, Sequence

from resnet_fused.bench.requirements import require
from resnet_fused.train.degradation.experiment import FAMILIES, Trained
from resnet_fused.train.degradation.findings import Final, error_of, finals

DEPTH_COLOURS = ("#d07a2d", "#2a8fbd", "#3f9a5a", "#a0529b", "#8c96a5")  # legible on white and on black
FAMILY_COLOURS = {"plain": "#d07a2d", "resnet": "#2a8fbd"}
STYLES = {"train": dict(linestyle="--", linewidth=1), "test": dict(linestyle="-", linewidth=2)}
NAMES = {"train": "training", "test": "test"}


def svg(trained: Sequence[Trained]) -> str:
    """Lines are medians of the seeds, bands and bars reach from the least to the greatest; equal rows, equal bytes.

    Raises MissingPackage without matplotlib.
    """
    figures = require("matplotlib.figure", "matplotlib", "the figure", extra="train")
    rc_context = require("matplotlib", "matplotlib", "the figure", extra="train").rc_context
    figure = figures.Figure(figsize=(14, 4.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True)
    for axes, family in zip((left, middle), FAMILIES):
        _curves(axes, [one for one in trained if one.family == family])
        axes.set(xlabel="iteration", title={"plain": "without shortcuts", "resnet": "with shortcuts"}[family])
    _ends(right, finals(trained))
    right.set(xlabel="layers", title="after the last epoch")
    left.set(ylabel="error, per cent", ylim=(0, None))
    left.yaxis.set_tick_params(labelleft=True)
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "resnet_fused", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _curves(axes: Any, trained: Sequence[Trained]) -> None:
    """A family's errors over its iterations."""
    for depth, colour in zip(sorted({one.depth for one in trained}), DEPTH_COLOURS * len(trained)):
        ones = [one for one in trained if one.depth == depth]
        steps = [row["step"] for row in ones[0].rows]
        for part, style in STYLES.items():
            epochs = [[error_of(row, part) for row in rows] for rows in zip(*(one.rows for one in ones))]
            label = f"{ones[0].network}, {NAMES[part]}"
            axes.plot(steps, list(map(statistics.median, epochs)), label=label, color=colour, **style)
            if part == "test":
                axes.fill_between(steps, list(map(min, epochs)), list(map(max, epochs)), color=colour, alpha=0.15)


def _ends(axes: Any, ends: Sequence[Final]) -> None:
    """The errors of both families at the end over their depths."""
    for family, colour in FAMILY_COLOURS.items():
        mine = sorted((end for end in ends if end.family == family), key=lambda end: end.depth)
        depths = [end.depth for end in mine]
        for part, style in STYLES.items():
            errors = [end.train_errors if part == "train" else end.test_errors for end in mine]
            medians = [statistics.median(values) for values in errors]
            bars = [[m - min(v) for m, v in zip(medians, errors)], [max(v) - m for m, v in zip(medians, errors)]]
            axes.errorbar(depths, medians, yerr=bars, label=f"{family}, {NAMES[part]}", color=colour, marker="o",
                          markersize=4, capsize=3, **style)  # fmt: skip
    axes.set_xticks(sorted({end.depth for end in ends}))
