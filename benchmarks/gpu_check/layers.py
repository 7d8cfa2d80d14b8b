"""Every convolution of ResNet-50 in all passes: ours with what is fused into it, beside the library's alone.

Rows give milliseconds, TFLOP/s and the fraction of the roof: the time that the device's own matrix product or copy
would take for the operations and bytes, whichever is longer, over the time taken. Ours read more than the library's:
what a prologue or an epilogue needs beside the operands.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Callable, Iterator

import torch
from convolutions import LAYERS, Layer
from torch import Tensor

from resnet_fused import backends
from resnet_fused.bench.race import rotated
from resnet_fused.bench.result import finite
from resnet_fused.bench.statistics import paired_speedup, spread

from .device import Device, describe, open_device
from .part import Report
from .plan import Settings
from .rates import Copy, allow_tf32, matrix_tflops

RESNET50 = [layer for layer in LAYERS if layer.counts[2]]
ROUNDS = 5
TURN = 0.05  # of a race's: a kernel is short
# Of the norm, against the same operators in float32: rounding of operands and results, which is random, is far below,
# a tile that is wrong or missing far above.
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-3}
GRADIENT = 1 / 64  # a weight's gradient, a sum over a batch's pixels, must stay below float16's 65504


class Work:
    """A layer's tensors. `calls(operators)` gives for each pass a function and the bytes that it has to move."""

    def __init__(self, layer: Layer, batch: int, dtype: torch.dtype, device: Device) -> None:
        generator = torch.Generator(device.torch).manual_seed(layer.C + layer.K)

        def draw(*size: int) -> Tensor:
            values = torch.randn(size, generator=generator, device=device.torch, dtype=torch.float32).to(dtype)
            return values.contiguous(memory_format=torch.channels_last) if len(size) == 4 else values.float()

        C, K, P = layer.C, layer.K, layer.out_side
        self.layer = layer
        self.geometry = ([layer.stride] * 2, [layer.padding] * 2, [1, 1], 1)
        self.x, self.raw = draw(batch, C, layer.side, layer.side), draw(batch, K, P, P)
        self.grad = draw(batch, K, P, P) * GRADIENT
        self.weight = draw(K, C, layer.kernel, layer.kernel) / (C * layer.kernel**2) ** 0.5
        self.prologue = None if C == 3 else self.affine(draw, C)  # images come as they are
        self.bn, self.means = self.affine(draw, K), draw(2, K) * GRADIENT / 16

    @staticmethod
    def affine(draw: Callable[..., Tensor], channels: int) -> Tensor:
        """mean, scale, shift, invstd."""
        rows = draw(4, channels) / 4
        return torch.stack((rows[0], 1 + rows[1], rows[2], 1 + rows[3].abs()))

    def float(self) -> "Work":
        """The same in float32."""
        other = object.__new__(Work)
        other.__dict__ = {name: v.float() if isinstance(v, Tensor) else v for name, v in self.__dict__.items()}
        return other

    def calls(self, operators: Any) -> dict[str, Callable[[], Any]]:
        relu = self.prologue is not None
        head = (self.grad, None, self.raw, self.bn, self.means, True, self.x, self.weight, *self.geometry)
        convolve = (self.x, self.weight, *self.geometry)
        return {
            "fprop": lambda: operators.conv_fprop(*convolve, self.prologue, relu, True, None, None, None, False),
            "infer": lambda: operators.conv_fprop(*convolve, None, False, False, self.bn, None, None, True),
            "dgrad": lambda: operators.conv_dgrad(*head, self.prologue, relu, relu, None, None),
            "wgrad": lambda: operators.conv_wgrad(*head, self.prologue, relu),
        }

    def library(self, which: str) -> Callable[[], Any]:
        """The convolution alone."""
        stride, padding, dilation, groups = self.geometry
        if which in ("fprop", "infer"):
            return lambda: torch.conv2d(self.x, self.weight, None, *self.geometry)
        mask = [which == "dgrad", which == "wgrad", False]
        backward = torch.ops.aten.convolution_backward
        return lambda: backward(
            self.grad, self.x, self.weight, None, stride, padding, dilation, False, [0, 0], groups, mask
        )

    def bytes(self, which: str) -> int:
        """Each operand and result once: x, the output or its gradient, weights; backward raw, and dgrad x."""
        more = {"dgrad": self.raw.nbytes + self.x.nbytes * (self.prologue is not None), "wgrad": self.raw.nbytes}
        return self.x.nbytes + self.grad.nbytes + self.weight.nbytes + more.get(which, 0)


def error_of(results: Any, exact: Any) -> float:
    """The largest ‖ours − exact‖ / ‖exact‖ of the results; NaN stays."""
    pairs = zip(results, exact) if isinstance(results, tuple) else [(results, exact)]
    errors = [float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs if b.numel()]
    return max(errors, key=lambda error: error if error == error else float("inf"))


def measure(work: Work, which: str, dtype: str, device: Device, operators: Any) -> dict[str, Any]:
    """A row; what is wrong or fails gets no time."""
    row: dict[str, Any] = {"layer": str(work.layer), "count": work.layer.counts[2], "pass": which, "status": "ok"}
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False  # this one need not be fast
    allow_tf32(False)
    exact = work.float().calls(backends.get("reference"))[which]()
    allow_tf32(True)
    torch.backends.cudnn.benchmark = benchmark
    ours = work.calls(operators)[which]
    try:
        error_of_norm = error_of(ours(), exact)
    except Exception as error:  # a compiler's, too: it is this layer's result
        if device.is_lost(error):
            raise
        return {**row, "status": "failed", "error": describe(error)}
    row["error_of_norm"] = finite(error_of_norm)
    if not error_of_norm <= TOLERANCE[dtype]:
        return {**row, "status": "wrong", "error": f"by {error_of_norm:.1e} of the norm"}
    del exact
    contenders = {"ours": ours, "library": work.library(which)}
    for call in contenders.values():
        device.seconds(call, 3)
    repeats = {name: device.repeats(device.seconds(call, 3), TURN) for name, call in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(min(ROUNDS, device.settings.rounds)):
        for name in rotated(list(contenders), i):
            times[name].append(device.seconds(contenders[name], repeats[name]))
    row["milliseconds"] = {name: asdict(spread([1e3 * s for s in t])) for name, t in times.items()}
    row["speedup"] = asdict(paired_speedup(times["ours"], times["library"]))
    return row


def roof_seconds(work: Work, which: str, batch: int, tflops: float, copy_gb_per_s: float) -> float:
    return max(work.layer.operations(batch) / tflops / 1e12, work.bytes(which) / copy_gb_per_s / 1e9)


def rows_of(
    layer: Layer, dtype: str, device: Device, operators: Any, rates: dict[str, float]
) -> Iterator[dict[str, Any]]:
    batch = device.settings.layer_batch
    work = Work(layer, batch, getattr(torch, dtype), device)
    for which in layer.passes:
        row = measure(work, which, dtype, device, operators)
        roof = 1e3 * roof_seconds(work, which, batch, **rates)
        row |= {"operations": layer.operations(batch), "bytes": work.bytes(which), "roof_milliseconds": roof}
        if row["status"] == "ok":
            row["of_roof"] = {name: roof / time["median"] for name, time in row["milliseconds"].items()}
        yield row


def run(settings: Settings, report: Report, dtype: str, backend: str) -> None:
    device = open_device(settings)
    reason = backends.available().get(backend)
    if reason is not None:
        raise RuntimeError(reason)
    torch.backends.cudnn.benchmark = backend != "triton"  # where it is set Triton compiles and measures all tilings
    allow_tf32(True)
    rates = {"tflops": matrix_tflops(device, getattr(torch, dtype)), "copy_gb_per_s": Copy(device).gb_per_s()}
    device.forget()
    result: dict[str, Any] = {"dtype": dtype, "backend": backend, "batch": settings.layer_batch, **rates, "rows": [],
                              "bad": []}  # fmt: skip
    for layer in RESNET50[-1:] if settings.emulated else RESNET50:
        report.progress(str(layer))
        for row in rows_of(layer, dtype, device, backends.get(backend), rates):
            result["rows"].append(row)
            if row["status"] != "ok":
                result["bad"].append(f"{row['layer']} {row['pass']} {dtype} {row['status']}: {row['error']}")
            report.result(result)
        device.forget()
