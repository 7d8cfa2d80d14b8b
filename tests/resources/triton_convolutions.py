"""What ptxas made of the Triton convolutions, in every tiling that is shipped and for every architecture.

`PYTHONPATH=tests python -m resources.triton_convolutions` compiles them (a quarter of an hour on one core) and writes
triton_conv.json; `--check` compiles again and shows what differs. No GPU is needed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from . import triton_compilation

PATH = Path(__file__).resolve().parent / "triton_conv.json"
ARCHITECTURES = ("sm_80", "sm_89", "sm_90", "sm_100", "sm_120")
SHARED = {"sm_80": 163, "sm_89": 99, "sm_90": 227, "sm_100": 227, "sm_120": 99}  # KiB that a block may have
MATRIX = ("wgmma.mma_async", "tcgen05.mma", "mma.sync", "fma.rn.f32")  # of the PTX, by preference
COLUMNS = ("registers", "stack", "local", "shared", "blocks", "HMMA", "LDGSTS.128", "LDSM", "FFMA")


class Key(NamedTuple):
    case: str  # of CASES, the prologue and epilogue that need most; or of MERGES
    math: str
    tiling: tuple  # () of MERGES
    arch: str


def _launches(case: str, math: str, tiling) -> list:
    """(kernel, grid, arguments, options) of an operator's launches on tensors that nobody computes."""
    from resnet_fused.backends.triton import conv, launch

    dtype = torch.float16 if math == "half" else torch.float32

    def tensor(*size):
        return torch.empty(size, dtype=dtype, memory_format=torch.channels_last)

    N = 16 if case == "splits" else 2  # enough pixels to be split
    x, weight, y = tensor(N, 64, 14, 14), tensor(128, 64, 3, 3), tensor(N, 128, 14, 14)
    affine_x, affine, means = torch.empty(4, 64), torch.empty(4, 128), torch.empty(2, 128)
    geometry = ([1, 1], [1, 1], [1, 1], 1)
    backward = (y, y, y, affine, means, True, x, weight, *geometry, affine_x, True)
    calls = {
        "fprop": lambda: conv.conv_fprop(x, weight, *geometry, affine_x, True, True, None, None, None, False),
        "fprop_residual": lambda: conv.conv_fprop(x, weight, *geometry, affine_x, True, False, affine, y, affine, True),
        "dgrad": lambda: conv.conv_dgrad(*backward, True, x, x),
        "wgrad": lambda: conv.conv_wgrad(*backward),
    }
    found = []
    before = conv.tilings, torch.backends.cudnn.allow_tf32
    conv.tilings, torch.backends.cudnn.allow_tf32 = lambda *_: (tiling,), math == "tf32"
    try:
        with launch.replaced(lambda *arguments: found.append(arguments)):
            calls[MERGES.get(case, case)]()
    finally:
        conv.tilings, torch.backends.cudnn.allow_tf32 = before
    return found


CASES = ("fprop", "fprop_residual", "dgrad", "wgrad")
MERGES = {"statistics": "fprop", "sums": "dgrad", "splits": "wgrad"}  # the second kernels, and after which they run


def kind_of(case: str) -> str:
    return case.partition("_")[0]


def keys() -> Iterator[Key]:
    """Of every tiling that a device with so much shared memory may run."""
    from resnet_fused.backends.triton import conv_plan

    for case in CASES:
        for math in conv_plan.TILINGS:
            for arch in ARCHITECTURES:
                device = conv_plan.Device(int(arch[3:]), 100, SHARED[arch] << 10)
                for tiling in conv_plan.possible_tilings(kind_of(case), math, device, 3 if "grad" in case else 1):
                    yield Key(case, math, tuple(tiling), arch)
    for case in MERGES:
        for arch in ARCHITECTURES:
            yield Key(case, "half", (), arch)


def row_of(key: Key) -> dict:
    from resnet_fused.backends.triton.conv_plan import TILINGS, Tiling

    tiling = Tiling(*key.tiling) if key.tiling else TILINGS[key.math][-1]
    kernel, _, arguments, options = _launches(key.case, key.math, tiling)[key.case in MERGES]
    variant = triton_compilation.variant_of(kernel, arguments, options)
    with tempfile.TemporaryDirectory() as folder:
        facts = triton_compilation.facts(variant, key.arch, Path(folder))
    ptx = triton_compilation.compiled(variant, key.arch).asm["ptx"]
    matrix = next((name for name in MATRIX if name in ptx), None)
    found = {"tiling": list(key.tiling), "matrix": matrix} | {column: facts[column] for column in COLUMNS}
    return key._asdict() | found


def read() -> tuple[str, dict[Key, dict]]:
    """Triton's version and the committed rows."""
    content = json.loads(PATH.read_text())
    rows = [row | {"tiling": tuple(row["tiling"])} for row in content["rows"]]
    return content["triton"], {Key(*(row[field] for field in Key._fields)): row for row in rows}


def write(rows: list[dict]) -> None:
    lines = ",\n".join(json.dumps(row) for row in rows)
    PATH.write_text(f'{{"triton": "{triton_compilation.version()}", "rows": [\n{lines}\n]}}\n')


def broken(rows) -> list[str]:
    """A line for each row that must not be shipped: spills, no tensor cores, narrow copies, too much memory."""
    lines = []
    for row in rows:
        wrong = [f"{column} is {row[column]}" for column in ("stack", "local") if row[column]]
        if row["case"] not in MERGES:
            wrong += _of_product(row)
        if wrong:
            lines.append(f"{row['case']} {row['math']} {list(row['tiling'])} {row['arch']}: {', '.join(wrong)}")
    return lines


def _of_product(row: dict) -> list[str]:
    """What is wrong with the kernel of a convolution."""
    from resnet_fused.backends.triton import conv_plan

    wanted = {"sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma"}.get(row["arch"], "mma.sync")
    if row["math"] == "float32":
        wanted = "fma.rn.f32"
    elif row["tiling"][0] < 64:  # a warpgroup multiplies 64 rows
        wanted = "mma.sync"
    bound = conv_plan.shared_bytes(row["math"], conv_plan.Tiling(*row["tiling"]), 3 if "grad" in row["case"] else 1)
    return [
        *[f"{row['matrix']} instead of {wanted}"] * (row["matrix"] != wanted),
        *["no asynchronous copies of 16 bytes"] * (row["LDGSTS.128"] == 0),
        *[f"{row['shared']} bytes of shared memory, more than {bound}"] * (row["shared"] > bound),
    ]


def main() -> int:
    if reason := triton_compilation.why_not():
        print(f"the kernels cannot be compiled here: {reason}", file=sys.stderr)
        return 1
    rows = []
    for key in keys():
        rows.append(row_of(key))
        print(*rows[-1].values(), flush=True)
    if "--check" in sys.argv:
        _, before = read()
        now = {Key(*(tuple(row[f]) if f == "tiling" else row[f] for f in Key._fields)): row for row in rows}
        differing = [key for key in before.keys() | now.keys()
                     if {**before.get(key, {}), "tiling": 0} != {**now.get(key, {}), "tiling": 0}]  # fmt: skip
        print(*differing, sep="\n")
        return bool(differing)
    write(rows)
    print(*broken(rows), sep="\n")
    return bool(broken(rows))


if __name__ == "__main__":
    sys.exit(main())
