"""What ptxas made of the Triton batch norm and stem kernels, for every architecture.

`PYTHONPATH=tests python -m resources.triton_bn` compiles them (two minutes on one core) and writes and checks
triton.json. No GPU is needed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

from . import triton_compilation

PATH = Path(__file__).resolve().parent / "triton.json"
ARCHITECTURES = ("sm_80", "sm_89", "sm_90", "sm_100", "sm_120")
COLUMNS = ("registers", "stack", "local", "shared", "threads", "warps", "instructions",
           *[f"{kind}.{bits}" for kind in ("LDG", "STG") for bits in (128, 64, 32, 16, 8)],
           "LDL", "STL", "BAR")  # fmt: skip
KEY = ("kernel", "case", "dtype", "layout", "arch")
# ResNet-50's second stage, the stem for the pool: channels and pixels are multiples of 16.
SIZE = (2, 64, 32, 32)
CONFIGURATIONS = [("float32", "nhwc"), ("float16", "nhwc"), ("bfloat16", "nhwc"), ("float32", "nchw")]


def _calls(dtype: str, layout: str) -> dict:
    """Of each kernel the launches that need most."""
    from resnet_fused.backends import relu_mask, triton
    from resnet_fused.backends.triton.bn_apply import add_masked

    memory_format = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}[layout]
    N, C, H, W = SIZE
    x = torch.empty(SIZE, dtype=getattr(torch, dtype), memory_format=memory_format)
    y = torch.empty((N, C, H // 2, W // 2), dtype=x.dtype, memory_format=memory_format)
    mask = relu_mask.empty(x)
    index, affine, means = y.to(torch.uint8), torch.empty(4, C), torch.empty(2, C)
    return {
        "statistics": lambda: triton.bn_statistics(x),
        "finalize": lambda: triton.bn_finalize(means, 7, affine[0], affine[1], 1e-5),
        "apply": lambda: triton.bn_apply(x, affine, True),
        "apply_residual_affine": lambda: triton.bn_apply(x, affine, True, x, affine),
        "apply_mask": lambda: triton.bn_apply_mask(x, affine, x, affine),
        "add_masked": lambda: add_masked(x, x, x),
        "reduce_relu": lambda: triton.bn_backward_reduce(x, None, x, affine, True),
        "mask_reduce_two": lambda: triton.bn_backward_mask_reduce(x, x, x, affine, x, affine),
        "mask_reduce_two_bits": lambda: triton.bn_backward_mask_reduce(x, None, x, affine, x, affine, mask),
        "backward_apply_out": lambda: triton.bn_backward_apply(x, x, x, affine, True, means),
        "pool": lambda: triton.stem_pool(x, affine),
        "pool_reduce": lambda: triton.stem_pool_backward_reduce(y, index, x, affine),
        "pool_apply": lambda: triton.stem_pool_backward_apply(y, index, SIZE, x, affine, means),
    }


def variants(configurations) -> dict[tuple, triton_compilation.Variant]:
    """By kernel, case, dtype and layout; what one case compiles as another did is one row."""
    from resnet_fused.backends.triton import launch

    found = {}
    for dtype, layout in configurations:
        for case, call in _calls(dtype, layout).items():
            launches = []
            with launch.replaced(lambda *launched: launches.append(launched)):
                call()
            for kernel, _, arguments, options in launches:
                variant = triton_compilation.variant_of(kernel, arguments, options)
                if not any(variant == other for other in found.values()):
                    found[kernel.__name__, case, dtype, layout] = variant
    return found


def rows_of(configurations=CONFIGURATIONS, architectures=ARCHITECTURES) -> list[dict]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for key, variant in variants(configurations).items():
            for arch in architectures:
                facts = triton_compilation.facts(variant, arch, Path(folder))
                rows.append(dict(zip(KEY, (*key, arch))) | {column: facts[column] for column in COLUMNS})
    return rows


def read() -> tuple[str, list[dict]]:
    """Triton's version and the committed rows."""
    content = json.loads(PATH.read_text())
    return content["triton"], [dict(zip(content["columns"], row)) for row in content["rows"]]


def write(rows: list[dict]) -> None:
    lines = ",\n".join(json.dumps(list(row.values())) for row in rows)
    columns = json.dumps([*KEY, *COLUMNS])
    PATH.write_text(f'{{"triton": "{triton_compilation.version()}",\n"columns": {columns},\n"rows": [\n{lines}\n]}}\n')


def differences(before: list[dict], after: list[dict]) -> list[str]:
    old, new = ({tuple(row[name] for name in KEY): row for row in rows} for rows in (before, after))
    return [f"{' '.join(key)}: {_change(old.get(key), new.get(key))}" for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)]  # fmt: skip


def _change(old, new) -> str:
    if old is None or new is None:
        return "new" if old is None else "gone"
    return ", ".join(f"{column} {old[column]} -> {new[column]}" for column in COLUMNS if old[column] != new[column])


def broken(rows: list[dict]) -> list[str]:
    """A line for each row that must not be shipped: spilled registers, or narrow accesses of what is aligned.

    Kernels bound by memory move 16 bytes a thread; of a mask that is a byte or less. The stem's winners are bytes, its
    windows overlap.
    """
    lines = []
    for row in rows:
        wrong = [f"{column} is {row[column]}" for column in ("stack", "local", "LDL", "STL") if row[column]]
        wrong += ["fewer than 16 warps on a multiprocessor"] * (row["warps"] < 16)
        if row["kernel"].startswith("bn_") and row["case"] != "finalize":
            wrong += ["no load of 16 bytes"] * (row["LDG.128"] == 0)
            stores = not row["kernel"].endswith(("statistics_kernel", "reduce_kernel")) or "mask" in row["case"]
            wrong += ["no store of 16 bytes"] * (stores and row["STG.128"] == 0)
            byte_of_mask = {"apply_mask": "STG.8", "mask_reduce_two_bits": "LDG.8"}.get(row["case"])
            narrow = {"LDG.16", "LDG.8", "STG.16", "STG.8"} - {byte_of_mask}
            wrong += [f"{row[name]} {name}" for name in sorted(narrow) if row[name]]
        if wrong:
            lines.append(f"{' '.join(row[name] for name in KEY)}: {', '.join(wrong)}")
    return lines


def main() -> int:
    if reason := triton_compilation.why_not():
        print(f"the kernels cannot be compiled here: {reason}", file=sys.stderr)
        return 1
    before = read()[1] if PATH.exists() else []
    rows = rows_of()
    write(rows)
    print("changed:", *differences(before, rows)[:40], "against the rules:", *broken(rows), sep="\n")
    return bool(broken(rows))


if __name__ == "__main__":
    sys.exit(main())
