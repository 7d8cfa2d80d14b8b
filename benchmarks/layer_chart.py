"""The chart of layers.py: fractions of the FMA peak, a panel for each pass."""

from __future__ import annotations

from typing import Any, Sequence

from commands import svg_text
from resnet_fused.bench.charts import COLOURS
from resnet_fused.bench.requirements import require

PURPOSE = "the layers' chart"


def svg(rows: Sequence[dict[str, Any]], passes: Sequence[str]) -> str:
    """A bar for ours and one for torch's, and a dot for our direct sum where Winograd's algorithm was chosen.

    Peaks count the direct sum's operations, so that Winograd's may pass the line at 1.
    """
    names = list(dict.fromkeys(row["layer"] for row in rows))
    figure = require("matplotlib.figure", "matplotlib", PURPOSE).Figure(
        figsize=(14, 0.3 * len(names) + 1.2), layout="constrained"
    )
    for axes, which in zip(figure.subplots(1, len(passes), sharey=True), passes):
        of_pass = [row for row in rows if row["pass"] == which]
        chosen = [row for row in of_pass if row["chosen"]]
        direct = [row for row in of_pass if not row["chosen"]]
        for key, kind, shift, label in (("ours", "ours", -0.2, "ours, all fused in"),
                                        ("torch", "peer", 0.2, "torch, convolution alone")):  # fmt: skip
            places = [names.index(row["layer"]) + shift for row in chosen]
            fractions = [row["fraction_of_peak"][key] for row in chosen]
            axes.barh(places, fractions, height=0.4, color=COLOURS[kind], label=label)
        axes.scatter([row["fraction_of_peak"]["ours"] for row in direct],
                     [names.index(row["layer"]) - 0.2 for row in direct],
                     color="black", s=10, zorder=3, label="ours, without Winograd")  # fmt: skip
        axes.axvline(1.0, color="black", linestyle="--", linewidth=1)
        axes.set_xlim(left=0)
        axes.set_title(which)
        axes.set_xlabel("fraction of the FMA peak")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.axes[0].set_yticks(range(len(names)), names, size=9)
    figure.axes[0].set_ylim(len(names) - 0.4, -0.6)
    legend = zip(*sorted(zip(*figure.axes[0].get_legend_handles_labels()), key=lambda pair: pair[1]))
    figure.legend(*legend, loc="outside lower center", ncols=3, frameon=False)
    return svg_text(figure, PURPOSE)
