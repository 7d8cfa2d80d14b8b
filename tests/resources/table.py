"""kernels.json: one line for each kernel and architecture, so that a change's diff shows what it changed."""

import json
from pathlib import Path
from typing import NamedTuple

from resnet_fused.bench.table import grid

from . import sass
from .occupancy import LIMITS

PATH = Path(__file__).resolve().with_name("kernels.json")
COLUMNS = [
    "kernel", "arch", "registers", "spill_stores", "spill_loads", "stack", "shared", "threads", "blocks", "warps",
    *sass.COLUMNS,
]  # fmt: skip


def _key(row: dict) -> tuple:
    return row["kernel"], list(LIMITS).index(row["arch"])


class Table(NamedTuple):
    nvcc: str  # its version
    flags: list[str]
    rows: list[dict]


def write(table: Table, path=PATH) -> None:
    rows = [json.dumps([row[column] for column in COLUMNS]) for row in sorted(table.rows, key=_key)]
    head = {"nvcc": table.nvcc, "flags": table.flags, "columns": COLUMNS}
    lines = [f'"{name}": {json.dumps(value)}' for name, value in head.items()]
    path.write_text("{\n" + ",\n".join([*lines, '"rows": [\n' + ",\n".join(rows) + "\n]"]) + "\n}\n")


def read(path=PATH) -> Table:
    table = json.loads(path.read_text())
    return Table(table["nvcc"], table["flags"], [dict(zip(table["columns"], row)) for row in table["rows"]])


def differences(before: list[dict], after: list[dict]) -> list[str]:
    """A line for each kernel and architecture that is not the same in both."""
    old, new = ({_key(row): row for row in rows} for rows in (before, after))
    lines = []
    for key in sorted(old.keys() | new.keys()):
        row = new.get(key) or old[key]
        if key not in old or key not in new:
            changes = ["new" if key in new else "gone"]
        else:
            changes = [f"{column} {old[key].get(column)} -> {row[column]}" for column in COLUMNS
                       if old[key].get(column) != row[column]]  # fmt: skip
        if changes:
            lines.append(f"{row['kernel']} {row['arch']}: {', '.join(changes)}")
    return lines


def family(row: dict) -> str:
    """The kernel's name without its template arguments."""
    return row["kernel"].partition("<")[0]


def summary(rows: list[dict]) -> str:
    """For each kernel and architecture the most registers and the fewest warps of an SM, of any instantiation."""
    families: dict[str, dict[str, list[dict]]] = {}
    for row in sorted(rows, key=_key):
        families.setdefault(family(row), {}).setdefault(row["arch"], []).append(row)
    cells = []
    for name, by_arch in families.items():
        registers = [max(row["registers"] for row in found) for found in by_arch.values()]
        warps = [f"{min(row['warps'] for row in found)}/{LIMITS[arch].warps}" for arch, found in by_arch.items()]
        worst = [f"{used}: {held}" for used, held in zip(registers, warps)]
        cells.append([name, str(max(map(len, by_arch.values()))), *worst])
    note = "most registers: fewest warps of an SM / the most it holds, over the template's instantiations"
    return grid(["kernel", "of it", *LIMITS], cells) + f"\n{note}"
