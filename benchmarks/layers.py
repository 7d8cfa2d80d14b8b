"""Every distinct convolution of ResNet-18, -34 and -50 in all passes: ours, with all that is fused into it, beside
torch's convolution alone.

    python benchmarks/layers.py --batch 16 --json FILE --plot FILE.svg

The contenders take turns; each ratio is of neighbours in time, and the figure the median of the ratios.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from typing import Callable, NamedTuple

import torch
from torch import Tensor

import resnet_fused  # noqa: F401  registers torch.ops.resnet_fused
from resnet_fused import _cpu
from resnet_fused.bench import environment
from resnet_fused.bench.result import write_atomically

ops = torch.ops.resnet_fused
LAST, NCHW = torch.channels_last, torch.contiguous_format
PASSES = ("fprop", "infer", "dgrad", "wgrad")
TORCH_PASS = {"fprop": "fprop", "infer": "fprop", "dgrad": "dgrad", "wgrad": "wgrad"}


class Layer(NamedTuple):
    C: int
    K: int
    side: int
    kernel: int
    stride: int
    counts: tuple[int, int, int] = (0, 0, 0)  # in ResNet-18, -34 and -50

    def __str__(self) -> str:
        return f"{self.C}-{self.K}@{self.side} {self.kernel}x{self.kernel}/{self.stride}"

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def out_side(self) -> int:
        return (self.side + 2 * self.padding - self.kernel) // self.stride + 1

    def operations(self, batch: int) -> int:
        """Additions and multiplications of the direct sum."""
        return 2 * batch * self.out_side**2 * self.K * self.C * self.kernel**2


MODELS = ("resnet18", "resnet34", "resnet50")
LAYERS = (
    Layer(3, 64, 224, 7, 2, (1, 1, 1)),
    Layer(64, 64, 56, 3, 1, (4, 6, 3)),
    Layer(128, 128, 28, 3, 1, (3, 7, 3)),
    Layer(256, 256, 14, 3, 1, (3, 11, 5)),
    Layer(512, 512, 7, 3, 1, (3, 5, 2)),
    Layer(64, 128, 56, 3, 2, (1, 1, 0)),
    Layer(128, 256, 28, 3, 2, (1, 1, 0)),
    Layer(256, 512, 14, 3, 2, (1, 1, 0)),
    Layer(128, 128, 56, 3, 2, (0, 0, 1)),
    Layer(256, 256, 28, 3, 2, (0, 0, 1)),
    Layer(512, 512, 14, 3, 2, (0, 0, 1)),
    Layer(64, 128, 56, 1, 2, (1, 1, 0)),
    Layer(128, 256, 28, 1, 2, (1, 1, 0)),
    Layer(256, 512, 14, 1, 2, (1, 1, 0)),
    Layer(256, 512, 56, 1, 2, (0, 0, 1)),
    Layer(512, 1024, 28, 1, 2, (0, 0, 1)),
    Layer(1024, 2048, 14, 1, 2, (0, 0, 1)),
    Layer(64, 64, 56, 1, 1, (0, 0, 1)),
    Layer(64, 256, 56, 1, 1, (0, 0, 4)),
    Layer(256, 64, 56, 1, 1, (0, 0, 2)),
    Layer(256, 128, 56, 1, 1, (0, 0, 1)),
    Layer(128, 512, 28, 1, 1, (0, 0, 4)),
    Layer(512, 128, 28, 1, 1, (0, 0, 3)),
    Layer(512, 256, 28, 1, 1, (0, 0, 1)),
    Layer(256, 1024, 14, 1, 1, (0, 0, 6)),
    Layer(1024, 256, 14, 1, 1, (0, 0, 5)),
    Layer(1024, 512, 14, 1, 1, (0, 0, 1)),
    Layer(512, 2048, 7, 1, 1, (0, 0, 3)),
    Layer(2048, 512, 7, 1, 1, (0, 0, 2)),
)


def affine_rows(channels: int, values=(0.1, 0.9, 0.2, 1.1)) -> Tensor:
    return torch.tensor(values).view(4, 1).repeat(1, channels)


def activation(batch: int, channels: int, side: int) -> Tensor:
    """In the memory that our operators' results lie in (huge pages), as a network's activations do."""
    x = torch.randn(batch, channels, side, side).contiguous(memory_format=LAST)
    return ops.bn_apply(x, affine_rows(channels, (0.0, 1.0, 0.0, 1.0)), False)


class Work:
    """One layer's tensors and what is timed: `ours[pass]()` and `torch[pass, layout]()`."""

    def __init__(self, layer: Layer, batch: int) -> None:
        torch.manual_seed(0)
        C, K, P = layer.C, layer.K, layer.out_side
        stride, padding = [layer.stride] * 2, [layer.padding] * 2
        geometry = (stride, padding, [1, 1], 1)
        x, grad, raw = activation(batch, C, layer.side), activation(batch, K, P), activation(batch, K, P)
        weight = (torch.randn(K, C, layer.kernel, layer.kernel) / (C * layer.kernel**2) ** 0.5).contiguous(memory_format=LAST)
        prologue = None if C == 3 else affine_rows(C)  # the stem reads images
        affine, means = affine_rows(K), torch.full((2, K), 0.1)
        bn = (grad, None, raw, affine, means, True)
        reduce = prologue is not None
        self.ours: dict[str, Callable] = {
            "fprop": lambda: ops.conv_fprop(x, weight, *geometry, prologue, True, True, None, None, None, False),
            "infer": lambda: ops.conv_fprop(x, weight, *geometry, None, False, False, affine, None, None, True),
            "dgrad": lambda: ops.conv_dgrad(*bn, x, weight, *geometry, prologue, True, reduce, None, None),
            "wgrad": lambda: ops.conv_wgrad(*bn, x, weight, *geometry, prologue, True),
        }
        self.torch: dict[tuple[str, str], Callable] = {}
        for name, layout in (("NCHW", NCHW), ("NHWC", LAST)):
            t = [tensor.contiguous(memory_format=layout) for tensor in (x, weight, grad)]
            self.torch["fprop", name] = lambda t=t: torch.conv2d(t[0], t[1], None, stride, padding)
            for which, mask in (("dgrad", (True, False, False)), ("wgrad", (False, True, False))):
                self.torch[which, name] = lambda t=t, mask=mask: torch.ops.aten.convolution_backward(
                    t[2], t[0], t[1], None, stride, padding, [1, 1], False, [0, 0], 1, mask
                )

    def passes(self, layer: Layer) -> tuple[str, ...]:
        """The stem's input needs no gradient."""
        return tuple(p for p in PASSES if layer.C != 3 or p != "dgrad")


def algorithms(layer: Layer, batch: int) -> tuple[str, ...]:
    """What can run the layer: the chosen algorithm, and the direct sum beside Winograd's."""
    chosen = _cpu.conv_algorithm(
        [batch, layer.C, layer.side, layer.side], [layer.K, layer.C, layer.kernel, layer.kernel],
        [layer.stride] * 2, [layer.padding] * 2, [1, 1], 1, "float32",
    )  # fmt: skip
    return (chosen, "direct") if chosen == "winograd" else (chosen,)


def seconds(function: Callable) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1]}


def measure(layer: Layer, batch: int, rounds: int, peak: float) -> list[dict]:
    """A row for each pass and algorithm. `peak`: GFLOP/s."""
    work, rows = Work(layer, batch), []
    for which in work.passes(layer):
        for algorithm in algorithms(layer, batch):
            _cpu.set_winograd(algorithm == "winograd")
            sides = {"ours": work.ours[which]}
            sides |= {name: work.torch[TORCH_PASS[which], name] for name in ("NCHW", "NHWC")}
            times: dict[str, list[float]] = {name: [] for name in sides}
            for function in sides.values():
                function(), function()
            for _ in range(rounds):
                for name, function in sides.items():
                    times[name].append(seconds(function))
            _cpu.set_winograd(True)
            best = min(("NCHW", "NHWC"), key=lambda name: statistics.median(times[name]))
            flops = layer.operations(batch) / 1e9
            rows.append(
                {
                    "layer": str(layer), "pass": which, "algorithm": algorithm,
                    "ours_ms": {k: 1e3 * v for k, v in spread(times["ours"]).items()},
                    "torch_ms": {name: 1e3 * statistics.median(times[name]) for name in ("NCHW", "NHWC")},
                    "torch_best": best,
                    "speedup": spread([b / a for a, b in zip(times["ours"], times[best])]),
                    "fraction_of_peak": flops / statistics.median(times["ours"]) / peak,
                    "torch_fraction_of_peak": flops / statistics.median(times[best]) / peak,
                }
            )  # fmt: skip
    return rows


def totals(rows: list[dict]) -> dict[str, dict]:
    """Milliseconds of a model's convolutions: training (fprop, dgrad, wgrad) and inference."""
    chosen = {}
    for row in rows:  # the first algorithm of a layer and pass is the chosen one
        chosen.setdefault((row["layer"], row["pass"]), row)
    result = {}
    for i, model in enumerate(MODELS):
        for mode, passes in (("train", ("fprop", "dgrad", "wgrad")), ("infer", ("infer",))):
            ours = theirs = 0.0
            for layer in LAYERS:
                for which in passes:
                    if (str(layer), which) in chosen and layer.counts[i]:
                        row = chosen[str(layer), which]
                        ours += layer.counts[i] * row["ours_ms"]["median"]
                        theirs += layer.counts[i] * row["torch_ms"][row["torch_best"]]
            result[f"{model} {mode}"] = {"ours_ms": ours, "torch_ms": theirs}
    return result


def plot(rows: list[dict], path: str) -> None:
    """Fractions of the FMA peak, a bar for ours and one for torch's; above 1 is what Winograd saves."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["layer"] for row in rows))
    figure = Figure(figsize=(14, 0.24 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots(1, len(PASSES), sharey=True)
    for axis, which in zip(axes, PASSES):
        chosen = {}
        for row in rows:
            if row["pass"] == which:
                chosen.setdefault(row["layer"], row)
        places = [i for i, name in enumerate(names) if name in chosen]
        picked = [chosen[names[i]] for i in places]
        axis.barh([i - 0.2 for i in places], [r["fraction_of_peak"] for r in picked], 0.4, color="#2a8fbd", label="ours, fused")
        axis.barh([i + 0.2 for i in places], [r["torch_fraction_of_peak"] for r in picked], 0.4, color="#8c96a5",
                  label="torch, convolution alone")  # fmt: skip
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_title(which)
        axis.set_xlabel("fraction of the FMA peak")
    axes[0].set_yticks(range(len(names)), names, size=8)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    axes[-1].legend(loc="lower right", fontsize=8)
    figure.savefig(path)


def copy_bandwidth() -> float:
    """GB/s of tensor.copy_, bytes read plus bytes written."""
    source = torch.zeros(2**26)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source)) for _ in range(6)) / 1e9


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=environment.cpu_count())
    parser.add_argument("--layers", default="", help="only layers whose name contains this")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE.svg")
    options = parser.parse_args(arguments)
    from tqdm import tqdm

    torch.set_num_threads(options.threads)
    peak, rows = _cpu.fma_peak(options.threads), []
    for layer in tqdm([layer for layer in LAYERS if options.layers in str(layer)], unit="layer"):
        rows += measure(layer, options.batch, options.rounds, peak)
        peak = max(peak, _cpu.fma_peak(options.threads))
    for row in rows:
        print(f"{row['layer']:20s} {row['pass']:5s} {row['algorithm']:8s} {row['ours_ms']['median']:7.2f} ms "
              f"{row['fraction_of_peak']:5.2f} of peak   {row['speedup']['median']:5.2f}x torch {row['torch_best']}")  # fmt: skip
    for name, sums in totals(rows).items():
        print(f"{name:16s} {sums['ours_ms']:8.1f} ms, torch's convolutions alone {sums['torch_ms']:8.1f} ms")
    if options.json:
        command = [a for i, a in enumerate(arguments) if not {"--json", "--plot"} & {a, arguments[i - 1] if i else ""}]
        result = {
            "command": shlex.join(["python", "benchmarks/layers.py", *command]), "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "environment": environment.describe(options.threads), "batch": options.batch, "fma_peak_gflops": peak,
            "copy_gb_per_s": copy_bandwidth(), "rows": rows, "models": totals(rows),
        }  # fmt: skip
        write_atomically(options.json, json.dumps(result, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main(sys.argv[1:])
