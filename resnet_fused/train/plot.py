"""A run's losses and accuracies, drawn over its epochs."""

from __future__ import annotations

import io
import os
from typing import Sequence

from resnet_fused.bench.requirements import require
from resnet_fused.bench.result import write_atomically
from resnet_fused.train.metrics import EMA, Row

NAME = "plot.svg"
COLOURS = {"train": "#8c96a5", "test": "#2a8fbd", "averaged": "#d07a2d"}  # legible on white and on black
CURVES = {
    "loss": {"train": "train_loss", "test": "test_loss"},
    "accuracy": {"train": "train_accuracy", "test": "test_accuracy", "averaged": EMA},
}


def write(folder: str, rows: Sequence[Row], title: str) -> None:
    """Replaces the folder's plot: loss on the left, on a logarithmic scale, accuracy on the right.

    The same rows give the same bytes. Raises MissingPackage without matplotlib.
    """
    figures = require("matplotlib.figure", "matplotlib", "the plot", extra="train")
    rc_context = require("matplotlib", "matplotlib", "the plot", extra="train").rc_context
    figure = figures.Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    for axes, (quantity, curves) in zip(figure.subplots(1, 2), CURVES.items()):
        for name, field in curves.items():
            points = [(row["epoch"], row[field]) for row in rows if field in row]
            if points:
                axes.plot(*zip(*points), label=name, color=COLOURS[name], marker="." if len(points) < 30 else None)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
        if quantity == "loss" and all(row[field] > 0 for row in rows for field in curves.values()):
            axes.set_yscale("log")
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "resnet_fused"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    write_atomically(os.path.join(folder, NAME), text.getvalue())
