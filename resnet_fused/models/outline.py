"""A network's layers in the groups that papers draw: blocks with their shortcuts, stages of equal extent."""

from __future__ import annotations

from typing import NamedTuple

from resnet_fused.models.count import Layer

_SHORTCUTS = {"identity": "", "padded": ", zero channels"}  # others: their own words
_DRAWN = ("input", "conv", "pool", "linear")


class Sums(NamedTuple):
    parameters: int
    multiply_adds: int
    kept_eager: int  # bytes
    kept_fused: int


class Item(NamedTuple):
    """A residual block, or a layer with what follows it until the next."""

    text: str
    boxes: tuple[str, ...]  # the texts of its layers in a drawing
    shortcut: str | None
    extent: tuple[int, int]  # of its output
    layers: tuple[Layer, ...]


class Stage(NamedTuple):
    """All items of one extent, in order."""

    extent: tuple[int, int]
    items: tuple[Item, ...]
    sums: Sums


def sums(layers) -> Sums:
    layers = list(layers)
    return Sums(*(sum(getattr(layer, field) for layer in layers) for field in Sums._fields))


def items(layers: tuple[Layer, ...]) -> list[Item]:
    """The layers in groups; batch norms, ReLUs and dropouts belong to the layer before them."""
    groups: list[list[Layer]] = []
    for layer in layers:
        begins = layer.unit is None and layer.kind in _DRAWN
        if begins or not groups or layer.unit != groups[-1][0].unit and layer.unit is not None:
            groups.append([])
        groups[-1].append(layer)
    return [_item(group) for group in groups]


def stages(layers: tuple[Layer, ...]) -> list[Stage]:
    """One for each extent, the largest first."""
    by_extent: dict[tuple[int, int], list[Item]] = {}
    for item in items(layers):
        by_extent.setdefault(item.extent, []).append(item)
    ordered = sorted(by_extent, key=lambda extent: extent[0] * extent[1], reverse=True)
    return [
        Stage(extent, tuple(by_extent[extent]), sums(layer for item in by_extent[extent] for layer in item.layers))
        for extent in ordered
    ]


def texts(stage: Stage) -> list[str]:
    """Its items as lines, with equal ones behind each other as one: 2 x [3x3, 64 | 3x3, 64]."""
    lines: list[tuple[int, str]] = []
    for item in stage.items:
        if lines and lines[-1][1] == item.text:
            lines[-1] = (lines[-1][0] + 1, item.text)
        else:
            lines.append((1, item.text))
    return [text if count == 1 else f"{count} x {text}" for count, text in lines]


def _item(group: list[Layer]) -> Item:
    drawn = [layer for layer in group if layer.kind in _DRAWN and not layer.in_shortcut]
    boxes = tuple(layer.text for layer in drawn)
    size = drawn[-1].size if drawn else group[-1].size
    extent = (size[2], size[3]) if len(size) == 4 else (1, 1)
    shortcut = group[0].shortcut
    text = " | ".join(boxes)
    if shortcut is not None:
        words = _SHORTCUTS.get(shortcut, f", {shortcut}")
        text = f"[{text.replace(' conv', '')}{words}]"
    return Item(text, boxes, shortcut, extent, tuple(group))
