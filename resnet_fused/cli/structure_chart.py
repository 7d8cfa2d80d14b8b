"""The drawing of ``resnet-fused describe``: networks beside each other, after He et al. 2016, figure 3.

A box for each layer with weights and each pool; solid arcs are identity shortcuts, dashed ones change the shape (by a
projection, or by zero channels). What has the same output size stands at the same height.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Sequence

from ..bench.requirements import require
from ..models import outline

if TYPE_CHECKING:
    from .describe import Description

PURPOSE = "the drawing"
# A fill for each extent in turn; black text is legible on all, and neighbours differ in grey too.
FILLS = ("#e9eef2", "#b9d7ea", "#f6d9a8", "#c9e3b4", "#f2b8b0", "#d5c7e8", "#f5efb5", "#c7cdd3")
WIDTH, HEIGHT, GAP = 2.0, 0.24, 0.1  # of a box and between boxes, in inches
COLUMN = WIDTH + 0.9  # with room for the arcs
MARGIN = 0.9  # on the left for the sizes, and above for the names
STAGE_GAP = 0.16  # below each extent
NOTE = 0.3  # at the bottom
BULGE = 0.4  # of an arc to the right


def svg(descriptions: Sequence[Description]) -> str:
    """The drawing as SVG, the same bytes every time."""
    matplotlib = require("matplotlib", "matplotlib", PURPOSE)
    tops, height = _tops(descriptions)
    height += NOTE
    width = MARGIN + COLUMN * len(descriptions)
    figure = require("matplotlib.figure", "matplotlib", PURPOSE).Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    for i, (extent, top) in enumerate(tops.items()):
        axes.annotate(f"{extent[0]}x{extent[1]}", (0.1, top + HEIGHT / 2), va="center", size=8, color="dimgray")
        for column, description in enumerate(descriptions):
            _stage(axes, description, extent, MARGIN + COLUMN * column, top, FILLS[i % len(FILLS)])
    for column, description in enumerate(descriptions):
        _title(axes, description, MARGIN + COLUMN * column + WIDTH / 2)
        _spine(axes, description, tops, MARGIN + COLUMN * column + WIDTH / 2)
    note = "arcs: shortcuts, dashed where they change the shape"
    axes.annotate(note, (0.1, height - NOTE / 2), va="center", size=7.5, color="dimgray")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "resnet_fused", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _boxes(stage: outline.Stage) -> int:
    return sum(len(item.boxes) for item in stage.items)


def _tops(descriptions: Sequence[Description]) -> tuple[dict[tuple[int, int], float], float]:
    """Where each extent begins, and where all ends: each is as high as its longest stage."""
    most: dict[tuple[int, int], int] = {}
    for description in descriptions:
        for stage in description.stages:
            most[stage.extent] = max(most.get(stage.extent, 0), _boxes(stage))
    tops, y = {}, MARGIN
    for extent in sorted(most, key=lambda e: e[0] * e[1], reverse=True):
        tops[extent] = y
        y += most[extent] * (HEIGHT + GAP) + STAGE_GAP
    return tops, y


def _stage(axes: Any, description: Description, extent: tuple[int, int], x: float, y: float, fill: str) -> None:
    for stage in description.stages:
        if stage.extent != extent:
            continue
        for item in stage.items:
            above = y - GAP
            for label in item.boxes:
                _box(axes, label, x, y, fill)
                y += HEIGHT + GAP
            if item.shortcut is not None:
                _arc(axes, item.shortcut, x + WIDTH, above + GAP / 2, y - GAP / 2)


def _box(axes: Any, label: str, x: float, y: float, fill: str) -> None:
    rectangle = require("matplotlib.patches", "matplotlib", PURPOSE).Rectangle
    axes.add_patch(rectangle((x, y), WIDTH, HEIGHT, facecolor=fill, edgecolor="black", linewidth=0.6, zorder=2))
    axes.annotate(label, (x + WIDTH / 2, y + HEIGHT / 2), ha="center", va="center", size=8, zorder=3)


def _arc(axes: Any, shortcut: str, x: float, top: float, bottom: float) -> None:
    """On the right of a block, from above its first box to below its last."""
    patches = require("matplotlib.patches", "matplotlib", PURPOSE)
    axes.add_patch(patches.FancyArrowPatch(
        (x, top), (x, bottom), connectionstyle=f"arc3,rad={-2 * BULGE / (bottom - top)}", arrowstyle="->",
        mutation_scale=8, linewidth=0.9, linestyle="-" if shortcut == "identity" else "--", shrinkA=0, shrinkB=0,
        zorder=4,
    ))  # fmt: skip


def _title(axes: Any, description: Description, x: float) -> None:
    sums = outline.sums(description.layers)
    axes.annotate(description.name, (x, 0.25), ha="center", va="center", size=11, weight="bold")
    numbers = f"{sums.parameters / 1e6:.3g} M parameters, {sums.multiply_adds / 1e9:.3g} G mult-adds"
    kept = f"kept {sums.kept_eager / 2**20:.1f} MiB eager, {sums.kept_fused / 2**20:.1f} fused"
    for y, line in ((0.48, numbers), (0.66, kept)):
        axes.annotate(line, (x, y), ha="center", va="center", size=7.5, color="dimgray")


def _spine(axes: Any, description: Description, tops: dict[tuple[int, int], float], x: float) -> None:
    """The line through a network's boxes, behind them."""
    last = description.stages[-1]
    bottom = tops[last.extent] + _boxes(last) * (HEIGHT + GAP) - GAP
    axes.plot((x, x), (tops[description.stages[0].extent], bottom), color="black", linewidth=0.8, zorder=1)
