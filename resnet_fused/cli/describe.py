"""``resnet-fused describe``: what networks consist of, side by side, stage by stage.

The bytes kept for the backward pass are by formula (resnet_fused/models/count.py): eager keeps each convolution's
output and the activation behind it, a fused unit one of the two.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, NamedTuple, Sequence

import torch

from .. import models
from ..bench.requirements import MissingPackage
from ..bench.result import Unwritable, check_writable, to_json, write_output
from ..bench.table import grid
from ..models import outline
from .bench import positive

SCHEMA = 1
MIB = 2**20
COUNTED = ("conv", "linear")  # layers with weights: what the papers count


class Description(NamedTuple):
    """One network for images of one size."""

    name: str
    image: int
    batch: int
    layers: tuple[models.Layer, ...]
    stages: list[outline.Stage]

    @property
    def depth(self) -> int:
        return sum(layer.kind in COUNTED and not layer.in_shortcut for layer in self.layers)


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "describe", help="show what networks consist of", allow_abbrev=False,
        description="Show networks side by side: the layers of each stage, output sizes, parameters, multiply-adds, "
        "and the bytes of activations in float32 that training keeps for the backward pass, eager and fused. Nothing "
        "is run. Exit status 2 for a name that is none.",
    )
    option = parser.add_argument
    option("models", nargs="+", metavar="MODEL", help=f"among {', '.join(models.list_models())}")
    option("--image", type=positive, metavar="S", help="height and width (default: 224, CIFAR's networks 32)")
    option("--batch", type=positive, default=1, metavar="N", help="images (default: %(default)s)")
    option("--layers", action="store_true", help="print every layer of each network too")
    option("--svg", metavar="FILE", help="draw the networks beside each other")
    option("--json", metavar="FILE", help="write all layers as JSON")
    parser.set_defaults(run=run, parser=parser)


def describe(name: str, image: int | None = None, batch: int = 1) -> Description:
    """Raises ValueError, in words, for an unknown name and for images too small for the network."""
    image = image or models.entry(name).image
    with torch.device("meta"):
        model = models.create(name)
    try:
        layers = models.layers(model, (batch, 3, image, image))
    except RuntimeError as error:
        raise ValueError(f"images of {image}x{image} are too small for {name}") from error
    return Description(name, image, batch, layers, outline.stages(layers))


def count(value: float) -> str:
    """1_814_073_344 → 1.81 G."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * factor:
            return f"{value / factor:.{3 if value < 999.5 * factor else 4}g} {unit}"
    return f"{value:.0f}"


def figures(sums: outline.Sums) -> str:
    """A stage's numbers on one line."""
    kept = f"{sums.kept_eager / MIB:.3g} / {sums.kept_fused / MIB:.3g} MiB"
    return f"{count(sums.parameters)} param, {count(sums.multiply_adds)} mult-add, {kept}"


def cells(description: Description) -> dict[tuple[int, int], list[str]]:
    """The lines of each stage."""
    return {stage.extent: [*outline.texts(stage), f"= {figures(stage.sums)}"] for stage in description.stages}


def text(descriptions: Sequence[Description]) -> str:
    """A table: a row for each output size, a column for each network; then the totals."""
    columns = [cells(description) for description in descriptions]
    extents = sorted({extent for column in columns for extent in column}, key=lambda e: e[0] * e[1], reverse=True)
    blocks = [[["output"], *([d.name] for d in descriptions)]]
    blocks += [[[f"{h}x{w}"], *(column.get((h, w), []) for column in columns)] for h, w in extents]
    blocks.append([["total"], *map(totals, descriptions)])
    widths = [max(len(line) for block in blocks for line in block[i]) for i in range(len(columns) + 1)]
    lines = []
    for block in blocks:
        for y in range(max(map(len, block))):
            line = (cell[y] if y < len(cell) else "" for cell in block)
            lines.append("  ".join(piece.ljust(width) for piece, width in zip(line, widths)).rstrip())
        lines.append("")
    images = descriptions[0].batch
    note = "param: parameters; mult-add: multiply-adds; MiB kept for backward in float32, eager / fused; for "
    return "\n".join((*lines, note + ("one image" if images == 1 else f"{images} images")))


def totals(description: Description) -> list[str]:
    """A network's numbers, a line each."""
    sums = outline.sums(description.layers)
    return [
        f"{description.depth} layers with weights",
        f"{sums.parameters:,} param",
        f"{sums.multiply_adds / 1e9:.3f} G mult-add",
        f"{sums.kept_eager / MIB:.1f} MiB kept eager",
        f"{sums.kept_fused / MIB:.1f} MiB kept fused, {sums.kept_fused / sums.kept_eager:.2f} of eager's",
    ]


def layer_table(description: Description) -> str:
    """A network's layers, a line each; bytes of `batch` images."""
    rows = [
        (layer.name or "-", layer.text + (f" ({layer.shortcut})" if layer.in_shortcut else ""),
         "x".join(map(str, layer.size[1:])), f"{layer.parameters:,}", f"{layer.multiply_adds:,}",
         f"{layer.kept_eager:,}", f"{layer.kept_fused:,}")
        for layer in description.layers
    ]  # fmt: skip
    head = (description.name, "layer", "output", "param", "mult-add", "bytes kept eager", "bytes kept fused")
    return grid(head, rows) + "\n"


def as_dictionary(description: Description) -> dict[str, Any]:
    """Ready for JSON: the totals, the stages' lines and sums, and every layer."""
    return {
        "name": description.name,
        "image": description.image,
        "batch": description.batch,
        "depth": description.depth,
        **outline.sums(description.layers)._asdict(),
        "stages": [
            {"output": list(stage.extent), "layers": outline.texts(stage), **stage.sums._asdict()}
            for stage in description.stages
        ],
        "layers": [layer._asdict() for layer in description.layers],
    }


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Describe, print, and write what was asked for."""
    try:
        descriptions = [describe(name, options.image, options.batch) for name in dict.fromkeys(options.models)]
    except ValueError as error:
        options.parser.error(str(error))
    try:
        check_writable(options.json, options.svg)
        print(text(descriptions))
        for description in descriptions if options.layers else ():
            print(f"\n{layer_table(description)}", end="")
        if options.json:
            result = {"schema": SCHEMA, "models": [as_dictionary(description) for description in descriptions]}
            write_output(options.json, to_json(result))
        if options.svg:
            from .structure_chart import svg

            write_output(options.svg, svg(descriptions))
    except (MissingPackage, Unwritable) as error:
        print(f"resnet-fused describe: {error}", file=sys.stderr)
        return 1
    return 0
