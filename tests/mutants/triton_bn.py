"""Bugs seeded into the Triton batch norm and stem kernels, and the test that catches each first:
`python -m mutants.triton_bn [REGEX]`.

A mutant is a copy of resnet_fused/backends/triton with one mistake. tests/interpreted/test_bn_operators.py runs on it,
in a process of its own in which the copy is imported in the package's place. triton_bn.json has the score.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[1] / "resnet_fused" / "backends" / "triton"
TESTS = HERE.parent / "interpreted" / "test_bn_operators.py"
SCORE = HERE / "triton_bn.json"
SURVIVED = "nothing"


class TritonMutant(NamedTuple):
    name: str
    file: str
    old: str  # occurs once
    new: str
    symptom: str


MUTANTS = [
    TritonMutant("relu-stops-nan", "element.py", "tl.where(argument <= 0, 0, x)", "tl.where(argument > 0, x, 0)",
                 "NaN becomes 0"),
    TritonMutant("affine-not-centred", "element.py", "tl.fma(x - mean, scale, shift)",
                 "tl.fma(x, scale, shift - mean * scale)", "large means cancel"),
    TritonMutant("row-of-affine", "element.py", "rows + row * channels + channel", "rows + channel",
                 "every row of the affine is the mean"),
    TritonMutant("tile-one-pixel-more", "tile.py", "(first + local < view.pixels)", "(first + local <= view.pixels)",
                 "`<=` for `<`: a pixel behind the tensor's end"),
    TritonMutant("tile-not-cut", "tile.py", "(local < view.tile_pixels) & ", "",
                 "pixels at the end of a tile counted twice"),
    TritonMutant("tile-image", "tile.py", "row = image * view.image_stride + ", "row = ", "every image is the first"),
    TritonMutant("tile-channels", "tile.py", "(channel < view.channels)[None, :]",
                 "(channel <= view.channels)[None, :]",
                 "a channel too many"),
    TritonMutant("last-chunk-whole", "tile.py", "tl.minimum(chunk * tl.cdiv(tiles, chunks), tiles)",
                 "chunk * tl.cdiv(tiles, chunks)", "tiles behind the last one"),
    TritonMutant("statistics-no-pivot", "bn_statistics.py", "    pivot = tl.where(pivot - pivot == 0, pivot, 0)",
                 "    pivot = pivot * 0", "E[x^2] - E[x]^2"),
    TritonMutant("statistics-pivot-infinite", "bn_statistics.py", "    pivot = tl.where(pivot - pivot == 0, pivot, 0)",
                 "    pivot = pivot", "the mean of an infinity is NaN"),
    TritonMutant("statistics-tail", "bn_statistics.py",
                 "tl.where(there, to_acc(tl.load(x + offset, mask=there)) - pivot[None, :], 0)",
                 "to_acc(tl.load(x + offset, mask=there, other=0)) - pivot[None, :]",
                 "what is not there counts as zeros"),
    TritonMutant("merge-without-deltas", "bn_statistics.py",
                 "m2 += m2_i + tl.where(there, count * delta * delta, 0)",
                 "m2 += m2_i", "wrong merge: without the means' distance"),
    TritonMutant("merge-equal-shares", "bn_statistics.py", "pixels_of_chunk(chunk, chunks, view)[:, None] / n",
                 "1.0 / chunks", "chunks of different size count alike"),
    TritonMutant("finalize-scale", "bn_statistics.py", "scale *= tl.load(weight", "scale = tl.load(weight",
                 "the scale is the weight"),
    TritonMutant("apply-residual-affine", "bn_apply.py", "r = apply_affine(r, z_residual)", "r = r",
                 "the residual's affine is ignored"),
    TritonMutant("apply-relu-first", "bn_apply.py",
                 "            value += r\n        if RELU:\n            value = zero_up_to_zero(value, value)\n",
                 "            value = r + (zero_up_to_zero(value, value) if RELU else value)\n"
                 "        elif RELU:\n            value = zero_up_to_zero(value, value)\n",
                 "ReLU before the residual"),
    TritonMutant("add-mask-ignored", "bn_apply.py", "if out is not None:\n            g = ",
                 "if False:\n            g = ", "what is added is not masked"),
    TritonMutant("sums-row-stride", "bn_backward.py", "(tl.program_id(0).to(tl.int64) * rows + row) * channels",
                 "(tl.program_id(0).to(tl.int64) + row) * channels", "partial sums overwrite each other"),
    TritonMutant("sums-wrong-operand", "bn_backward.py", "tl.fma(g, value2 - mean2, products2)",
                 "tl.fma(g, value - mean2, products2)", "x's product in x2's row"),
    TritonMutant("sums-wrong-invstd", "bn_backward.py", "tl.load(affine2 + 3 * channels",
                 "tl.load(affine + 3 * channels",
                 "x's invstd in x2's row"),
    TritonMutant("mask-not-stored", "bn_backward.py", "g.to(masked.dtype.element_ty)",
                 "tl.load(grad + offset, mask=there)", "the gradient is stored before its mask"),
    TritonMutant("mask-stops-nan", "relu_mask.py", "tl.where(y <= 0, 0, 1)", "tl.where(y > 0, 1, 0)",
                 "NaN's bit is clear"),
    TritonMutant("mask-bits-backwards", "relu_mask.py", "8]) << bit[None, None, :], 2)",
                 "8]) << (7 - bit)[None, None, :], 2)", "the first of eight channels is the byte's last bit"),
    TritonMutant("mask-bytes-apart", "relu_mask.py", "return offset // 8, there", "return offset, there",
                 "a byte lies where its first element does"),
    TritonMutant("mask-first-bit", "relu_mask.py", "byte[:, None, :] >> bit[None, :, None]",
                 "byte[:, None, :] >> 0 * bit[None, :, None]", "eight pixels take the bit of the first"),
    TritonMutant("draw-slope", "bn_backward.py", "load_row(affine, 3, channel, channels) *",
                 "load_row(affine, 1, channel, channels) *",
                 "scale for invstd"),
    TritonMutant("draw-sign", "bn_backward.py", "tl.fma(-slope,", "tl.fma(slope,", "sign of the second mean's term"),
    TritonMutant("pool-ties", "stem_pool.py", "(value > best)", "(value >= best)", "the last of equal maxima wins"),
    TritonMutant("pool-border", "stem_pool.py", "(h >= 0) & (h < shape.height) & (w >= 0) & (w < shape.width)",
                 "(h >= 0) & (h < shape.height) & (w >= 0)", "windows reach into the next row"),
    TritonMutant("pool-nan", "stem_pool.py", " | (value != value)", "", "NaN never wins"),
    TritonMutant("gather-place", "stem_pool.py", "(1 + h % 2 if i == 0 else h * 0) * 3", "(1 if i == 0 else h * 0) * 3",
                 "odd rows look for the wrong place"),
    TritonMutant("gather-second-window", "stem_pool.py", "inside & ((i == 0) | (h % 2 == 1))", "inside & (i == 0)",
                 "an odd row's second window is forgotten"),
]  # fmt: skip


def mutated(mutant: TritonMutant, folder: str) -> str:
    """A folder with the mutated package in it."""
    package = Path(folder) / "triton"
    shutil.copytree(SOURCES, package, ignore=shutil.ignore_patterns("__pycache__"))
    path = package / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        times = text.count(mutant.old)
        raise LookupError(f"{mutant.name}: {mutant.file} has its text {times} times, not once:\n{mutant.old}")
    path.write_text(text.replace(mutant.old, mutant.new))
    return folder


class FirstFailure:
    """A plugin of pytest."""

    test = None

    def pytest_runtest_logreport(self, report):
        if report.failed and self.test is None:
            line = next((line[2:] for line in str(report.longrepr).splitlines() if line.startswith("E ")), "")
            self.test = f"{report.nodeid.rpartition('::')[2]}: {' '.join(line.split())}"[:160]


def _check(folder: str | None, found) -> None:
    import pytest

    import resnet_fused.backends

    if folder:
        resnet_fused.backends.__path__.insert(0, folder)
    plugin, output = FirstFailure(), io.StringIO()
    with contextlib.redirect_stdout(output):
        options = ["-q", "-x", "--slow", "-p", "no:cacheprovider", "-k", "not float16"]
        status = pytest.main([*options, str(TESTS)], [plugin])
    found.send(plugin.test or (f"not run: {output.getvalue()[-200:]}" if status else None))


def caught_by(folder: str | None) -> str | None:
    """By what the package in `folder` is caught, or None if it passes; the package as it is without one."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_check, args=(folder, sending))
    process.start()
    sending.close()
    try:
        return receiving.recv()
    except EOFError:
        process.join()
        return f"crash: exit code {process.exitcode}"
    finally:
        process.join()


def main() -> int:
    os.environ["TRITON_INTERPRET"] = "1"
    import torch
    import triton  # noqa: F401  (once for all the processes that are forked)

    torch.set_num_threads(1)
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    if not only and (failure := caught_by(None)):
        sys.exit(f"the kernels without a bug fail: {failure}")
    caught = {r["name"]: r["caught_by"] for r in json.loads(SCORE.read_text())["results"]} if only else {}
    for mutant in MUTANTS:
        if re.search(only, mutant.name):
            with tempfile.TemporaryDirectory() as folder:
                caught[mutant.name] = caught_by(mutated(mutant, folder)) or SURVIVED
            print(f"{mutant.name}: {caught[mutant.name]}", flush=True)
    results = [{"name": mutant.name, "symptom": mutant.symptom, "caught_by": caught.get(mutant.name, SURVIVED)}
               for mutant in MUTANTS]  # fmt: skip
    count = sum(result["caught_by"] != SURVIVED for result in results)
    print(f"{count} of {len(results)} mutants are caught")
    score = {"caught": count, "mutants": len(results), "results": results}
    SCORE.write_text(json.dumps(score, indent=1, ensure_ascii=False) + "\n")
    return 0 if count == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
