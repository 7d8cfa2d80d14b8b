"""Every distinct convolution of ResNet-18, -34 and -50 in all passes: ours, with all that is fused into it, beside
torch's convolution alone.

    python benchmarks/layers.py --batch 16 --json FILE --plot FILE.svg

The contenders take turns; a speed-up is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from statistics import median
from typing import Any, Iterable, Sequence

import torch

from commands import FEWEST, MOST, add_options, execute
from convolutions import LAYERS, LAYOUTS, MODELS, PASSES, Layer, Work, algorithms, running
from layer_chart import svg
from resnet_fused import _cpu
from resnet_fused.bench import environment
from resnet_fused.bench.requirements import require
from resnet_fused.cli.bench import positive
from turns import copy_bandwidth, faster, speedup, summary, take_turns, warm_up

DISTURBED = 0.9  # of the FMA peak: an idle machine repeats it within a few percent
MODES = {"train": ("fprop", "dgrad", "wgrad"), "infer": ("infer",)}


class Budget:
    """Seconds, shared out evenly over the measurements still to come."""

    def __init__(self, total: float, measurements: int) -> None:
        self.end, self.left = time.monotonic() + total, measurements

    def rounds(self, seconds_each: float) -> int:
        share = (self.end - time.monotonic()) / self.left
        self.left -= 1
        return min(max(FEWEST, int(share / seconds_each)), MOST)


def measure(layer: Layer, batch: int, budget: Budget, rounds: int | None) -> Iterable[dict[str, Any]]:
    """Times of each pass by each algorithm, with the work and the bytes that they are to be divided by."""
    work = Work(layer, batch)
    for which in layer.passes:
        for i, algorithm in enumerate(algorithms(layer, batch)):
            contenders = work.contenders(which)
            with running(algorithm):
                fitting = budget.rounds(warm_up(contenders))
                times = take_turns(contenders, rounds or fitting)
            yield {
                "layer": layer, "pass": which, "algorithm": algorithm, "chosen": i == 0, "times": times,
                "operations": layer.operations(batch),
                "bytes": {"ours": work.ours_bytes[which], "torch": work.torch_bytes},
            }  # fmt: skip


def row(measured: dict[str, Any], peak: float, bandwidth: float) -> dict[str, Any]:
    """A measurement's part of the JSON. `peak` in GFLOP/s, `bandwidth` in GB/s."""
    times = measured["times"]
    best = faster(times)
    milliseconds = {name: summary(values) for name, values in times.items()}
    medians = {side: milliseconds[name]["median"] / 1e3 for side, name in (("ours", "ours"), ("torch", best))}

    def fractions(amounts: dict[str, float], limit: float) -> dict[str, float]:
        return {side: round(amounts[side] / medians[side] / 1e9 / limit, 4) for side in medians}

    return {
        "layer": str(measured["layer"]),
        "counts": dict(zip(MODELS, measured["layer"].counts)),
        "pass": measured["pass"],
        "algorithm": measured["algorithm"],
        "chosen": measured["chosen"],
        "ours_ms": milliseconds["ours"],
        "torch_ms": {layout: milliseconds[layout] for layout in LAYOUTS},
        "torch_best": best,
        "speedup": {name: round(value, 4) for name, value in speedup(times).items()},
        "fraction_of_peak": fractions(dict.fromkeys(medians, measured["operations"]), peak),
        "fraction_of_copy": fractions(measured["bytes"], bandwidth),
        "rounds_ms": {name: [round(1e3 * value, 4) for value in values] for name, values in times.items()},
    }


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Milliseconds of a model's convolutions in a training step and in inference, from the medians.

    ours_direct: without Winograd's algorithm; torch_best: the better layout of each layer and pass. Models of which a
    layer was not measured are left out.
    """
    chosen = {(r["layer"], r["pass"]): r for r in rows if r["chosen"]}
    direct = chosen | {(r["layer"], r["pass"]): r for r in rows if r["algorithm"] == "direct"}
    result = {}
    for i, model in enumerate(MODELS):
        for mode, passes in MODES.items():
            parts = [(str(layer), which, layer.counts[i]) for layer in LAYERS if layer.counts[i]
                     for which in layer.passes if which in passes]  # fmt: skip
            if not all((layer, which) in chosen for layer, which, _ in parts):
                continue
            sums = dict.fromkeys(("ours", "ours_direct", "torch_best", *(f"torch_{name}" for name in LAYOUTS)), 0.0)
            for layer, which, count in parts:
                theirs = {name: ms["median"] for name, ms in chosen[layer, which]["torch_ms"].items()}
                sums["ours"] += count * chosen[layer, which]["ours_ms"]["median"]
                sums["ours_direct"] += count * direct[layer, which]["ours_ms"]["median"]
                sums["torch_best"] += count * min(theirs.values())
                for name, value in theirs.items():
                    sums[f"torch_{name}"] += count * value
            result[f"{model} {mode}"] = {f"{name}_ms": round(value, 3) for name, value in sums.items()}
    return result


def show(result: dict[str, Any]) -> None:
    """The result as lines of text."""
    for r in result["rows"]:
        peak, copy, ratio = r["fraction_of_peak"], r["fraction_of_copy"], r["speedup"]
        print(f"{r['layer']:19s} {r['pass']:5s} {r['algorithm']:8s} {r['ours_ms']['median']:8.2f} ms "
              f"{peak['ours']:5.2f} of FMA peak (torch {peak['torch']:.2f}) {copy['ours']:5.2f} of copy "
              f"{ratio['median']:5.2f}x ({ratio['p20']:.2f}-{ratio['p80']:.2f}) torch {r['torch_best']}")  # fmt: skip
    copy = result["copy_gb_per_s"]
    print(f"FMA peak {result['fma_peak_gflops']:.0f} GFLOP/s, "
          f"copy {copy['median']:.1f} GB/s ({copy['min']:.1f}-{copy['max']:.1f})")  # fmt: skip
    if result["fma_peak_lowest_gflops"] < DISTURBED * result["fma_peak_gflops"]:
        print(f"caution: the FMA peak fell to {result['fma_peak_lowest_gflops']:.0f} GFLOP/s: the machine was not idle")
    for name, sums in result["models"].items():
        print(f"{name:14s} convolutions: {sums['ours_ms']:8.1f} ms with all fused in "
              f"(direct {sums['ours_direct_ms']:.1f}), torch alone {sums['torch_best_ms']:8.1f} ms "
              f"(NCHW {sums['torch_NCHW_ms']:.1f}, NHWC {sums['torch_NHWC_ms']:.1f}): "
              f"{sums['torch_best_ms'] / sums['ours_ms']:.2f}x")  # fmt: skip


def command(options: argparse.Namespace) -> str:
    """What was run, without the paths of its output."""
    words = ["python", "benchmarks/layers.py"]
    for name in ("batch", "threads", "budget", "rounds", "layers"):
        value = getattr(options, name)
        words += [f"--{name}", str(value)] if value else []
    return shlex.join(words)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the layers asked for, and the machine's limits after each.

    The FMA peak repeats, so that the best counts; the copy bandwidth wanders with what shares the memory, so that its
    median does.
    """
    tqdm = require("tqdm", "tqdm", "the benchmark's progress bar").tqdm
    torch.set_num_threads(options.threads)
    layers = [layer for layer in LAYERS if options.layers in str(layer)]
    if not layers:
        sys.exit(f"layers.py: no layer's name contains {options.layers!r}; they are {', '.join(map(str, LAYERS))}")
    steps = sum(len(layer.passes) * len(algorithms(layer, options.batch)) for layer in layers)
    measured, budget = [], Budget(options.budget, steps)
    peaks, bandwidths, start = [], [], time.time()
    with tqdm(total=steps, leave=False, disable=None, dynamic_ncols=True) as bar:
        for layer in layers:
            bar.set_description_str(str(layer))
            for step in measure(layer, options.batch, budget, options.rounds):
                measured.append(step)
                bar.update()
            peaks.append(_cpu.fma_peak(options.threads))
            bandwidths.append(copy_bandwidth())
    rows = [row(step, max(peaks), median(bandwidths)) for step in measured]
    return {
        "command": command(options),
        "date": time.strftime("%Y-%m-%d", time.gmtime(start)),
        "seconds": time.time() - start,
        "environment": environment.describe(options.threads),
        "batch": options.batch,
        "fma_peak_gflops": max(peaks),
        "fma_peak_lowest_gflops": min(peaks),
        "copy_gb_per_s": {"median": median(bandwidths), "min": min(bandwidths), "max": max(bandwidths)},
        "models": totals(rows),
        "rows": rows,
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    option = parser.add_argument
    option("--batch", type=positive, default=16, metavar="N", help="images (default: %(default)s)")
    option("--layers", default="", metavar="TEXT", help="only layers whose name contains it, such as 3x3/1 or 64-64@56")
    add_options(parser, budget=300, chart=" of the fractions of the FMA peak")
    return execute(parser.parse_args(arguments), "layers.py", run, show, lambda result: svg(result["rows"], PASSES))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
