"""explain: which units a model runs fused, on what, and which not, and why."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from resnet_fused.modules import FusedModule, Record, record
from resnet_fused.modules.torchvision import FrozenBatchNorm2d
from resnet_fused.surgery.fuse import why_not


class Row(NamedTuple):
    name: str  # the module's qualified name; "(model)" for the model itself; "first to last" for a series of layers
    unit: str
    backend: str | None  # None: eager PyTorch
    reason: str


class Explanation(NamedTuple):
    rows: tuple[Row, ...]

    @property
    def fused(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.backend is not None)

    @property
    def left_alone(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.backend is None)

    def __str__(self) -> str:
        cells = [("unit", "kind", "runs", "why")]
        cells += [(row.name, row.unit, row.backend or "eager", row.reason) for row in self.rows]
        widths = [max(len(line[i]) for line in cells) for i in range(3)]
        lines = ["  ".join((*(c.ljust(w) for c, w in zip(line, widths)), line[3])) for line in cells]
        return "\n".join((*lines, f"{len(self.fused)} of {len(self.rows)} units fused"))


def explain(model: nn.Module, x: Tensor) -> Explanation:
    """What every unit of `model` runs for the input x, and why; print it to see a table.

    Calls the model once, with gradients if they are enabled, on copies of its buffers and with the random state
    restored, so that nothing changes. Units: fused modules, torchvision blocks that were not fused, and batch norms
    outside of both; a block of several units has a row for each. Times, where units were measured, are those of the
    unit's forward pass, and with gradients of its backward pass too.
    """
    records: list[Record] = []
    call_without_trace(model, x, records)
    return _explanation(model, records)


def call_without_trace(model: nn.Module, x: Tensor, records: list[Record]) -> None:
    """model(x), of which nothing is left but a Record of every call of a fused module."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(), record(records):
        torch.func.functional_call(model, buffers, (x,))


def _explanation(model: nn.Module, records: list[Record]) -> Explanation:
    names = {module: name or "(model)" for name, module in model.named_modules()}
    # A unit made for the call, of children of the model, stands where its first child does.
    places = [r.module if r.module in names else next(r.module.children()) for r in records]
    ran: dict[nn.Module, dict[str, Row]] = {}  # of each module a row for each of its units
    for place, r in zip(places, records):
        units = ran.setdefault(place, {})
        if r.unit not in units or units[r.unit].backend is not None:  # of a unit's several calls the one that ran eager
            units[r.unit] = Row(_name(r.module, names), _kind(r.module), r.backend, r.reason)
    rows, inside = [], {child for r in records if r.module not in names for child in _unit_children(r.module)}
    for module, name in names.items():
        if module in ran:
            rows += _rows_of(ran[module])
        elif isinstance(module, FusedModule) and module not in inside:
            rows.append(Row(name, _kind(module), None, "its own forward was not called for this input"))
        elif why_not(module) is not None:
            rows.append(Row(name, _kind(module), None, why_not(module)))
        if isinstance(module, FusedModule):
            inside.update(_unit_children(module))
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d)) and module not in inside:
            rows.append(Row(name, type(module).__name__, None, "not part of a residual block or stem that is fused"))
    return Explanation(tuple(rows))


def _rows_of(units: dict[str, Row]) -> list[Row]:
    """A module's rows, which say which unit is meant where there are several."""
    if len(units) == 1:
        return list(units.values())
    return [row._replace(unit=f"{row.unit}, {name}") for name, row in units.items()]


def _name(module: nn.Module, names: dict[nn.Module, str]) -> str:
    """A unit's name; of one that is not itself in the model, those of its first and last child."""
    if module in names:
        return names[module]
    first, *_, last = (names[child] for child in module.children())
    return f"{first} to {last}"


def _kind(module: nn.Module) -> str:
    return "stem" if isinstance(module, nn.Module) and hasattr(module, "maxpool") else type(module).__name__


def _unit_children(module: FusedModule):
    """A fused module's own batch norms; a ResNet's unit is its stem alone."""
    roots = [module.bn1] if hasattr(module, "maxpool") else [module]
    return {child for root in roots for child in root.modules()}
