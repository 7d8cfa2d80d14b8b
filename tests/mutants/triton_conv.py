"""Bugs seeded into the Triton convolutions, and the first case that catches each:
`python -m mutants.triton_conv [REGEX]`.

A mutant is a copy of resnet_fused/backends/triton with one mistake, run in a process of its own, in which the copy is
imported in the package's place: by Triton's interpreter, or by the emulator, which finds accesses beyond tensors.
triton_conv.json has the score.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "resnet_fused" / "backends" / "triton"
SCORE = HERE / "triton_conv.json"
SURVIVED = "SURVIVED"


class TritonMutant(NamedTuple):
    name: str
    file: str
    old: str  # occurs once
    new: str
    symptom: str
    emulated: bool = False


MUTANTS = [
    TritonMutant("padding-before-prologue", "conv_prologue.py", "value = tl.where(inside, z, 0.0).to(", "value = z.to(",
                 "padding is relu(shift) instead of zero"),
    TritonMutant("draw-of-padding", "conv_prologue.py", "g = tl.where(inside, draw, 0.0)", "g = draw",
                 "a gradient from outputs that are not there"),
    TritonMutant("draw-mask-dropped", "conv_prologue.py", "load_masked(grad, out if RELU else None,",
                 "load_masked(grad, None,", "grad is not masked by out"),
    TritonMutant("draw-scale-for-invstd", "conv_prologue.py", "load_row(affine, 3, channel",
                 "load_row(affine, 1, channel", "xhat by scale instead of invstd"),
    TritonMutant("draw-means-swapped", "conv_prologue.py", "load_row(means, 1, channel", "load_row(means, 0, channel",
                 "the wrong mean in the slope"),
    TritonMutant("fprop-wrong-tap", "conv_fprop.py", "((r * S + s) * conv.group_C + c)",
                 "((s * R + r) * conv.group_C + c)", "the filter is transposed"),
    TritonMutant("fprop-dilation-forgotten", "conv_fprop.py", "dh, dw = r * conv.dilation_h,", "dh, dw = r,",
                 "rows of taps are adjacent"),
    TritonMutant("fprop-constants-of-first-group", "conv_fprop.py", "offset, inside, group * conv.group_C + c, conv.C,",
                 "offset, inside, c, conv.C,", "every group has the first one's batch norm"),
    TritonMutant("fprop-residual-affine", "conv_fprop.py",
                 "            r = apply_affine(r, load_affine(residual_affine, channel, channels))\n",
                 "            r += 0\n", "the residual's batch norm is left out"),
    TritonMutant("fprop-statistics-unrounded", "conv_fprop.py",
                 "store_moments(partials, row_tile, result.to(tl.float32),", "store_moments(partials, row_tile, acc,",
                 "statistics of what is not stored"),
    TritonMutant("merge-without-means", "conv_epilogue.py", "squares += m2 + count * (deviation * deviation)",
                 "squares += m2", "Chan's merge without the tiles' means"),
    TritonMutant("merge-last-tile-whole", "conv_epilogue.py", "tl.minimum(pixels - tile * tile_pixels, tile_pixels)",
                 "tl.minimum(pixels, tile_pixels)", "the last tile counts as a whole one"),
    TritonMutant("moments-of-missing-rows", "conv_epilogue.py",
                 "deviation = tl.where(rows[:, None], y - mean[None, :], 0.0)", "deviation = y - mean[None, :]",
                 "rows beyond the end have a deviation"),
    TritonMutant("sums-without-invstd", "conv_epilogue.py", "tl.sum(sum_gx, axis=0) * invstd", "tl.sum(sum_gx, axis=0)",
                 "sum g (x - mean) for sum g xhat"),
    TritonMutant("splits-last-left-out", "conv_epilogue.py", "mask=(split < splits)[:, None]",
                 "mask=(split < splits - 1)[:, None]", "off by one: a split's sums"),
    TritonMutant("dgrad-class-without-padding", "conv_dgrad.py", "(residue + padding - r * dilation) % stride == 0",
                 "(residue - r * dilation) % stride == 0", "taps of another class of pixels"),
    TritonMutant("dgrad-taps-forward", "conv_dgrad.py", "dp, dq = -t * step_h,", "dp, dq = t * step_h,",
                 "the filter is not turned around"),
    TritonMutant("dgrad-mask-of-add", "conv_dgrad.py", "load_masked(add, add_out,", "load_masked(add, add,",
                 "add is masked by the wrong tensor"),
    TritonMutant("dgrad-add-before-rounding", "conv_dgrad.py", "acc = acc.to(dx.dtype.element_ty).to(tl.float32) + ",
                 "acc = acc + ", "rounded once, where eager and the other backends round twice"),
    TritonMutant("dgrad-sums-unrounded", "conv_dgrad.py", "g = tl.where(inside, result.to(tl.float32), 0.0)",
                 "g = tl.where(inside, acc, 0.0)", "sums of what is not stored"),
    TritonMutant("dgrad-sums-unmasked", "conv_dgrad.py",
                 "            g = zero_up_to_zero(apply_affine(value, load_affine(prologue, channel, conv.C)), g)\n",
                 "            g += 0\n", "sums of gradients that ReLU stops"),
    TritonMutant("wgrad-splits-overlap", "conv_wgrad.py",
                 "tl.minimum(first + split_steps * BLOCK_K, N.to(index) * P * Q)", "N.to(index) * P * Q",
                 "splits run on to the end"),
    TritonMutant("wgrad-split-swapped", "conv_wgrad.py", "offset = (split.to(tl.int64) * conv.K + filter)",
                 "offset = ((split * 0).to(tl.int64) * conv.K + filter)", "splits overwrite each other's sums"),
    TritonMutant("cursor-row-late", "conv_tile.py", "r = tl.where(s < taps_s, r, r + 1)",
                 "r = tl.where(s <= taps_s, r, r + 1)", "the second row of taps is never reached"),
    TritonMutant("steps-tail", "conv_tile.py", "return tl.cdiv(taps * channels, BLOCK)",
                 "return taps * channels // BLOCK", "the last step of few channels is left out"),
    TritonMutant("tiles-last-rows", "conv_tile.py", "rows = tl.minimum(row_tiles - first_row, GROUP_ROWS)",
                 "rows = GROUP_ROWS", "tiles are left out where the last group of rows is smaller"),
    TritonMutant("fprop-pixels-unmasked", "conv_fprop.py", "rows, columns = m < N.to(index) * P * Q,",
                 "rows, columns = m < N.to(index) * P * Q + BLOCK_M,", "pixels beyond the end are stored",
                 emulated=True),
    TritonMutant("fprop-weights-unmasked", "conv_fprop.py",
                 "b = tl.load(w + offset, mask=there[:, None] & columns[None, :],",
                 "b = tl.load(w + offset, mask=columns[None, :],", "weights beyond the end are read", emulated=True),
    TritonMutant("wgrad-filters-unmasked", "conv_wgrad.py", "rows, columns = row < conv.group_K,",
                 "rows, columns = row < conv.group_K + BLOCK_M,", "filters beyond the end are stored", emulated=True),
    TritonMutant("pixels-transposed", "conv_tile.py", "return line // rows, line % rows, m % columns",
                 "return line // rows, m % columns, line % rows", "rows for columns"),
]  # fmt: skip


def mutated(mutant: TritonMutant, folder: Path) -> Path:
    """A folder with the mutated package in it."""
    package = folder / mutant.name / "triton"
    shutil.copytree(SOURCES, package, ignore=shutil.ignore_patterns("__pycache__"))
    path = package / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name}: {text.count(mutant.old)} places in {mutant.file} read {mutant.old!r}")
    path.write_text(text.replace(mutant.old, mutant.new))
    return package.parent


def _cases(emulated: bool):
    """(name, check) in the order in which they are likely to catch something."""
    import torch
    from conv_checks import check_integers
    from operator_cases import make_case
    from problems import CONVS, ConvProblem

    if emulated:
        from triton_emulated import OPERATORS as kernels
    else:
        from resnet_fused.backends import triton as kernels

    problems = {p.id: p for p in CONVS}
    problems["splits"] = ConvProblem("splits", 2, 5, 20, 20, 7, 1, 1)
    problems["deep"] = ConvProblem("deep", 1, 100, 5, 5, 100, 3, 3, padding=(1, 1))
    half, single = torch.float16, torch.float32
    battery = [
        ("backward_everything", "odd_channels", half), ("fprop_prologue", "odd_channels", half),
        ("fprop_residual_affine", "odd_channels", single), ("fprop_prologue", "groups", single),
        ("wgrad", "splits", half), ("backward_everything", "pixels_unread", single),
        ("fprop_prologue", "dilated", single), ("fprop_prologue", "batch_1", single),
        ("fprop_prologue", "non_square", single), ("fprop", "wide", single),
        ("backward_everything", "ragged", single), ("fprop_prologue", "deep", half),
        ("backward_everything", "deep", half),
    ]  # fmt: skip
    for mode, problem, dtype in battery[:3] if emulated else battery:
        def check(mode=mode, problem=problem, dtype=dtype):
            case = make_case(mode, problems[problem], dtype, torch.channels_last, integer=True)
            if problem == "deep":  # sums beyond 2048, which float16 rounds
                case = case._replace(arguments=(4 * case.arguments[0], *case.arguments[1:]))
            check_integers(kernels, case, dtype)

        yield f"integers-{mode}-{problem}-{str(dtype).removeprefix('torch.')}", check


def first_failure(emulated: bool) -> str | None:
    """The first case that the package which is imported fails, and how. Memory is NaN until it is written."""
    import torch

    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    for name, check in _cases(emulated):
        try:
            check()
        except Exception as error:
            line = next(line.strip() for line in f"{type(error).__name__}: {error}".splitlines() if line.strip())
            return f"{name}: {line}"[:160]
    return None


def caught_by(folder: Path | None, emulated: bool = False) -> str | None:
    """By what the package in `folder` is caught, or None if it passes; the package as it is without one."""
    tests = HERE.parent
    path = os.pathsep.join(map(str, [tests, tests.parent, os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"TRITON_INTERPRET": "01"[not emulated], "PYTHONPATH": path}
    command = [sys.executable, "-m", "mutants.triton_conv", "--run", *([folder] if folder else [])]
    done = subprocess.run(command, cwd=tests.parent, env=environment, capture_output=True, text=True)
    found = re.search(r"^caught: (.*)$", done.stdout, re.M)
    if not found:
        return f"crash: {done.stderr.strip().splitlines()[-1][:120] if done.stderr.strip() else done.returncode}"
    return None if found[1] == SURVIVED else found[1]


def _run(folder: str | None) -> None:
    if folder:
        import resnet_fused.backends

        resnet_fused.backends.__path__.insert(0, folder)
    print(f"caught: {first_failure(os.environ['TRITON_INTERPRET'] == '0') or SURVIVED}")


def main() -> int:
    if "--run" in sys.argv:
        _run(sys.argv[2] if len(sys.argv) > 2 else None)
        return 0
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    if failure := caught_by(None) or caught_by(None, emulated=True):
        sys.exit(f"the kernels without a bug fail: {failure}")
    known = {r["name"]: r["caught_by"] for r in json.loads(SCORE.read_text())["results"]} if only else {}
    for mutant in MUTANTS:
        if re.search(only, mutant.name):
            with tempfile.TemporaryDirectory() as folder:
                known[mutant.name] = caught_by(mutated(mutant, Path(folder)), mutant.emulated) or SURVIVED
            print(f"{mutant.name}: {known[mutant.name]}", flush=True)
    results = [{"name": m.name, "symptom": m.symptom, "caught_by": known.get(m.name, SURVIVED)} for m in MUTANTS]
    count = sum(result["caught_by"] != SURVIVED for result in results)
    print(f"{count} of {len(MUTANTS)} mutants are caught")
    score = {"caught": count, "mutants": len(MUTANTS), "results": results}
    SCORE.write_text(json.dumps(score, indent=1, ensure_ascii=False) + "\n")
    return count < len(MUTANTS)


if __name__ == "__main__":
    sys.exit(main())
