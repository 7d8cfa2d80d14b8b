"""The device's own limits: GB/s of a copy, and torch.mm's rate in each dtype."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any, Iterator

import torch

from resnet_fused.bench.statistics import spread

from .device import Device, describe, open_device
from .part import Report
from .plan import Settings

PRECISIONS = {"float16": (torch.float16, True), "bfloat16": (torch.bfloat16, True), "tf32": (torch.float32, True),
              "float32": (torch.float32, False), "float64": (torch.float64, False)}  # fmt: skip
WARM_UPS = 3
ROUNDS = 5  # of a product, which repeats within a few percent


def allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


class Copy:
    """tensor.copy_ of a tensor larger than any cache; both its bytes read and its bytes written count."""

    def __init__(self, device: Device) -> None:
        self.device, self.bytes = device, 2 * device.settings.copy_bytes
        self.source = torch.ones(device.settings.copy_bytes // 4, device=device.torch)
        self.target = torch.empty_like(self.source)
        for _ in range(WARM_UPS):
            self()

    def __call__(self) -> None:
        self.target.copy_(self.source)

    def gb_per_s(self) -> float:
        return self.bytes / self.device.seconds(self, 3) / 1e9


def rounds_of(device: Device, function: Any) -> list[float]:
    """Seconds of a call, by round."""
    for _ in range(WARM_UPS):
        function()
    repeats = device.repeats(device.seconds(function))
    return [device.seconds(function, repeats) for _ in range(min(ROUNDS, device.settings.rounds))]


def products(device: Device) -> Iterator[tuple[str, dict[str, Any]]]:
    """TFLOP/s of torch.mm on random matrices."""
    side = device.settings.matrix
    for name, (dtype, tf32) in PRECISIONS.items():
        try:
            allow_tf32(tf32)
            a, b = (torch.randn(side, side, device=device.torch, dtype=dtype) for _ in range(2))
            seconds = rounds_of(device, lambda: torch.mm(a, b))
            yield name, {"tflops": asdict(spread([2e-12 * side**3 / s for s in seconds])), "round_seconds": seconds}
        except RuntimeError as error:  # no memory, or no such product on this device
            yield name, {"error": describe(error)}
            if device.is_lost(error):
                raise


def matrix_tflops(device: Device, dtype: torch.dtype) -> float:
    """The median rate of torch.mm in a dtype."""
    side = device.settings.matrix
    a, b = (torch.randn(side, side, device=device.torch, dtype=dtype) for _ in range(2))
    return 2e-12 * side**3 / median(rounds_of(device, lambda: torch.mm(a, b)))


def run(settings: Settings, report: Report) -> None:
    device = open_device(settings)
    copy = Copy(device)
    copies = [copy.gb_per_s() for _ in range(max(3, settings.rounds))]
    result: dict[str, Any] = {"copy_gb_per_s": {**asdict(spread(copies)), "rounds": copies}, "mm": {}}
    del copy
    device.forget()
    report.result(result)
    for name, rate in products(device):
        report.progress(f"mm {name}")
        result["mm"][name] = rate
        report.result(result)
