"""Milliseconds per image of whole ResNets from batch 1 to 64: fused beside eager in both layouts.

    python benchmarks/batches.py --model resnet18 --mode infer --json FILE --plot FILE.svg

At each batch size the contenders take turns in one process; a speed-up is the median of the rounds' ratios. With
--tuned, every unit of the fused model is measured first (resnet_fused.tune) and runs what was fastest.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections import Counter
from typing import Any, Callable, Sequence

import torch
import torchvision

import resnet_fused
from commands import FEWEST, MOST, add_options, execute, svg_text
from resnet_fused.bench import environment
from resnet_fused.bench.charts import COLOURS
from resnet_fused.bench.requirements import require
from resnet_fused.cli.bench import positive
from turns import faster, speedup, summary, take_turns, warm_up

PURPOSE = "the chart of batch sizes"
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def training_step(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    labels = torch.arange(len(images)) % 1000

    def step() -> None:
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        model.zero_grad(set_to_none=True)

    return step


def inference(model: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    def step() -> None:
        with torch.inference_mode():
            model(images)

    return step


def contenders(name: str, mode: str, batch: int, image: int) -> dict[str, Callable[[], None]]:
    make_step = training_step if mode == "train" else inference
    images = torch.randn(batch, 3, image, image, generator=torch.Generator().manual_seed(0))

    def contender(layout: torch.memory_format, fused: bool) -> Callable[[], None]:
        model = getattr(torchvision.models, name)().train(mode == "train").to(memory_format=layout)
        if fused:
            resnet_fused.fuse(model)
        return make_step(model, images.contiguous(memory_format=layout))

    eager = {layout: contender(memory_format, False) for layout, memory_format in LAYOUTS.items()}
    return {"ours": contender(torch.channels_last, True), **eager}


def prepared(steps: dict[str, Callable[[], None]], tuned: bool) -> tuple[float, dict[str, int]]:
    """The seconds of a round, and how many units of ours run on which backend."""
    with resnet_fused.dispatch.measuring("always" if tuned else "never"):
        steps["ours"]()
    with resnet_fused.modules.record() as records:
        steps["ours"]()
    return warm_up(steps), dict(Counter(record.backend or "eager" for record in records))


def row(batch: int, times: dict[str, list[float]]) -> dict[str, Any]:
    per_image = {name: summary([value / batch for value in values]) for name, values in times.items()}
    return {
        "batch": batch,
        "ours_ms_per_image": per_image["ours"],
        "eager_ms_per_image": {layout: per_image[layout] for layout in LAYOUTS},
        "eager_best": faster(times),
        "speedup": {name: round(value, 4) for name, value in speedup(times).items()},
        "rounds_ms": {name: [round(1e3 * value, 3) for value in values] for name, values in times.items()},
    }


def show(result: dict[str, Any]) -> None:
    """The result as lines of text."""
    print(f"{result['model']} {result['mode']}, ms per image")
    for r in result["rows"]:
        eager, ratio = r["eager_ms_per_image"], r["speedup"]
        print(f"batch {r['batch']:3d}  fused {r['ours_ms_per_image']['median']:7.2f}  "
              f"eager NCHW {eager['NCHW']['median']:7.2f}  NHWC {eager['NHWC']['median']:7.2f}  "
              f"{ratio['median']:5.2f}x ({ratio['p20']:.2f}-{ratio['p80']:.2f}) eager {r['eager_best']}  "
              + ", ".join(f"{count} units {name}" for name, count in r["units"].items()))  # fmt: skip


def svg(result: dict[str, Any]) -> str:
    figure = require("matplotlib.figure", "matplotlib", PURPOSE).Figure(
        figsize=(6, 3.5), layout="constrained"
    )
    axes = figure.subplots()
    rows = result["rows"]
    batches = [r["batch"] for r in rows]
    axes.plot(batches, [r["ours_ms_per_image"]["median"] for r in rows], "o-", color=COLOURS["ours"], label="fused")
    for layout, line in zip(LAYOUTS, ("s--", "^:")):
        values = [r["eager_ms_per_image"][layout]["median"] for r in rows]
        axes.plot(batches, values, line, color=COLOURS["peer"], label=f"eager {layout}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("batch")
    axes.set_ylabel("ms per image")
    axes.set_title(f"{result['model']} {result['mode']}")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False)
    return svg_text(figure, PURPOSE)


def command(options: argparse.Namespace) -> str:
    """What was run, without the paths of its output."""
    words = ["python", "benchmarks/batches.py", "--model", options.model, "--mode", options.mode]
    words += ["--batch", *map(str, options.batch), "--image", str(options.image), "--threads", str(options.threads)]
    words += ["--tuned"] if options.tuned else []
    return shlex.join([*words, *(["--rounds", str(options.rounds)] if options.rounds else [])])


def run(options: argparse.Namespace) -> dict[str, Any]:
    tqdm = require("tqdm", "tqdm", "the benchmark's progress bar").tqdm
    torch.set_num_threads(options.threads)
    rows, start = [], time.time()
    share = options.budget / len(options.batch)
    for batch in tqdm(options.batch, leave=False, disable=None, dynamic_ncols=True):
        steps = contenders(options.model, options.mode, batch, options.image)
        seconds, units = prepared(steps, options.tuned)
        fitting = min(max(FEWEST, int(share / seconds)), MOST)
        rows.append({**row(batch, take_turns(steps, options.rounds or fitting)), "units": units})
    return {
        "command": command(options),
        "date": time.strftime("%Y-%m-%d", time.gmtime(start)),
        "seconds": time.time() - start,
        "environment": environment.describe(options.threads),
        "model": options.model,
        "mode": options.mode,
        "image": options.image,
        "rows": rows,
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    option = parser.add_argument
    option("--model", choices=["resnet18", "resnet34", "resnet50"], default="resnet18", help="(default: %(default)s)")
    option("--mode", choices=["train", "infer"], default="infer", help="(default: %(default)s)")
    option("--batch", type=positive, nargs="+", default=[1, 2, 4, 8, 16, 32, 64], metavar="N", help="(default: 1 … 64)")
    option("--image", type=positive, default=224, metavar="S", help="height and width (default: %(default)s)")
    option("--tuned", action="store_true", help="measure every unit first, and run what was fastest")
    add_options(parser, budget=120, chart="")
    with tempfile.TemporaryDirectory() as cache:  # what the user measured before is left alone, and not used
        os.environ["RESNET_FUSED_CACHE"] = cache
        return execute(parser.parse_args(arguments), "batches.py", run, show, svg)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
