"""GB/s of each memory-bound kernel on ResNet-50's shapes in channels_last, beside a copy's and eager's operations.

Bytes are those of each operand and each result once: what no implementation can do without.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Callable, Iterator, NamedTuple

import torch
import torch.nn.functional as F
from checks import REFERENCE, check_oracle
from operator_cases import Case, away_from_kink
from torch import Tensor

from resnet_fused.bench.race import rotated
from resnet_fused.bench.statistics import paired_speedup, spread

from .device import Device, describe, open_device
from .part import Report
from .plan import Settings
from .rates import Copy

EPS = 1e-5
STEM = (64, 112)
# Channels and side of every distinct activation behind a convolution of ResNet-50.
ACTIVATIONS = (STEM, (64, 56), (256, 56), (128, 56), (128, 28), (512, 28), (256, 28), (256, 14), (1024, 14), (512, 14),
               (512, 7), (2048, 7))  # fmt: skip
TURN = 0.1  # of a race's: a kernel is short


class Item(NamedTuple):
    """What is timed: our operators, one after another, and eager's, or None where eager has none of that kind."""

    name: str
    cases: tuple[Case, ...]
    eager: Callable[[], Any] | None


class Tensors:
    """An activation with its batch norm, its ReLU, and a gradient of that."""

    def __init__(self, channels: int, side: int, dtype: torch.dtype, device: Device) -> None:
        shape = (device.settings.operator_batch, channels, side, side)
        generator = torch.Generator(device.torch).manual_seed(channels + side)

        def draw() -> Tensor:
            values = torch.randn(shape, generator=generator, device=device.torch, dtype=dtype)
            return values.contiguous(memory_format=torch.channels_last)

        self.x, self.grad, self.residual = draw(), draw(), draw()
        self.count = self.x.numel() // channels
        self.weight = 1 + torch.randn(channels, generator=generator, device=device.torch) / 4
        self.bias = torch.randn(channels, generator=generator, device=device.torch) / 4
        self.affine = REFERENCE.bn_finalize(REFERENCE.bn_statistics(self.x), self.count, self.weight, self.bias, EPS)
        self.x = away_from_kink(self.x, self.affine).contiguous(memory_format=torch.channels_last)
        self.mean, self.invstd = self.affine[0].clone(), self.affine[3].clone()
        self.var = self.invstd**-2 - EPS
        self.out = REFERENCE.bn_apply(self.x, self.affine, True, self.residual)
        self.means = torch.randn(2, channels, generator=generator, device=device.torch) / 16

    def normalised(self) -> Tensor:
        return F.batch_norm(self.x, self.mean, self.var, self.weight, self.bias, False, 0.0, EPS)


def _backward_of(t: Tensors, function: Callable[[Tensor], Tensor], grad: Tensor) -> Callable[[], Any]:
    """Eager's backward pass of a batch norm in training and what follows it."""
    leaf, weight, bias = (tensor.clone(memory_format=torch.preserve_format).requires_grad_()
                          for tensor in (t.x, t.weight, t.bias))  # fmt: skip
    out = function(F.batch_norm(leaf, None, None, weight, bias, True, 0.0, EPS))
    return lambda: torch.autograd.grad(out, (leaf, weight, bias), grad, retain_graph=True)


def items(t: Tensors) -> Iterator[Item]:
    """Of the activations behind the stem."""
    backward = Case("bn_backward_apply", (t.grad, None, t.x, t.affine, True, t.means), 4)
    backward_out = Case("bn_backward_apply", (t.grad, t.out, t.x, t.affine, True, t.means), 4)
    reduce = Case("bn_backward_reduce", (t.grad, None, t.x, t.affine, True), t.count)
    reduce_out = Case("bn_backward_reduce", (t.grad, t.out, t.x, t.affine, True), t.count)

    def masked() -> Tensor:
        return torch.ops.aten.threshold_backward(t.grad, t.out, 0)

    def eager_reduce() -> Any:
        return torch.batch_norm_backward_reduce(masked(), t.x, t.mean, t.invstd, t.weight, True, True, True)

    def eager_apply() -> Any:
        sums = t.means * t.count
        count = torch.tensor([t.count], dtype=torch.int32, device=t.x.device)
        return torch.batch_norm_backward_elemt(masked(), t.x, t.mean, t.invstd, t.weight, sums[0], sums[1], count)

    yield _statistics(t)
    yield Item("bn_apply", (Case("bn_apply", (t.x, t.affine, True), 1),), lambda: F.relu(t.normalised()))
    yield Item("bn_apply + residual", (Case("bn_apply", (t.x, t.affine, True, t.residual), 1),),
               lambda: F.relu(t.normalised() + t.residual))  # fmt: skip
    yield Item("bn_backward_reduce", (reduce,), None)
    yield Item("bn_backward_reduce by out", (reduce_out,), eager_reduce)
    yield Item("bn_backward_apply", (backward,), None)
    yield Item("bn_backward_apply by out", (backward_out,), eager_apply)
    yield Item("bn_backward both", (reduce, backward), _backward_of(t, F.relu, t.grad))


def _statistics(t: Tensors) -> Item:
    return Item("bn_statistics", (Case("bn_statistics", (t.x,), t.count),), lambda: torch.var_mean(t.x, (0, 2, 3)))


def stem_items(t: Tensors) -> Iterator[Item]:
    """Of the stem, whose activation is pooled."""

    def pool(z: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(z), 3, 2, 1)

    pooled, index = REFERENCE.stem_pool(t.x, t.affine)
    grad = torch.randn_like(pooled)
    reduce = Case("stem_pool_backward_reduce", (grad, index, t.x, t.affine), t.count)
    apply = Case("stem_pool_backward_apply", (grad, index, list(t.x.shape), t.x, t.affine, t.means), 4)
    yield _statistics(t)
    yield Item("stem_pool", (Case("stem_pool", (t.x, t.affine), 1),), lambda: pool(t.normalised()))
    yield Item("stem_pool_backward_reduce", (reduce,), None)
    yield Item("stem_pool_backward_apply", (apply,), None)
    yield Item("stem_pool_backward both", (reduce, apply), _backward_of(t, pool, grad))


def moved_bytes(cases: tuple[Case, ...], results: list[Tensor]) -> int:
    operands = [a for case in cases for a in case.arguments if isinstance(a, Tensor)]
    return sum(tensor.nbytes for tensor in (*operands, *results))


def measure(item: Item, device: Device) -> dict[str, Any]:
    """A row of the result; wrong numbers get no rate."""
    row: dict[str, Any] = {"operator": item.name, "status": "ok"}
    try:
        for case in item.cases:
            check_oracle(case, device.operators)
        results = [result for case in item.cases for result in case.run(device.operators)]
    except AssertionError as error:
        return {**row, "status": "wrong", "error": describe(error)}
    row["bytes"] = moved_bytes(item.cases, results)
    del results
    contenders = {"ours": lambda: [case.run(device.operators) for case in item.cases]}
    if item.eager is not None:
        try:
            item.eager()
            contenders["eager"] = item.eager
        except (RuntimeError, NotImplementedError) as error:  # one of eager's that this device lacks
            row["eager_error"] = describe(error)
    repeats = {name: device.repeats(device.seconds(function), TURN) for name, function in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(device.settings.rounds):
        for name in rotated(list(contenders), i):
            times[name].append(device.seconds(contenders[name], repeats[name]))
    row["round_seconds"] = times
    row["gb_per_s"] = {name: asdict(spread([row["bytes"] / s / 1e9 for s in t])) for name, t in times.items()}
    if "eager" in times:
        row["speedup"] = asdict(paired_speedup(times["ours"], times["eager"]))
    return row


def shapes(settings: Settings) -> list[tuple[int, int]]:
    """Channels and side; the emulator's are smaller, and only the stem's and two more."""
    shrink = settings.operator_shrink
    chosen = ACTIVATIONS if shrink == 1 else (STEM, ACTIVATIONS[2], ACTIVATIONS[-1])
    return [(max(1, channels // shrink), max(1, side // shrink)) for channels, side in chosen]


def rows_of(shape: tuple[int, int], dtype: torch.dtype, device: Device) -> Iterator[dict[str, Any]]:
    """All of an activation's; an error is a row's result, and the last one where the device is lost with it."""
    named = {"activation": f"{shape[0]}x{shape[1]}x{shape[1]}"}
    items_of = stem_items if shape == shapes(device.settings)[0] else items
    for item in items_of(Tensors(*shape, dtype, device)):
        try:
            yield {**named, **measure(item, device)}
        except RuntimeError as error:
            yield {**named, "operator": item.name, "status": "failed", "error": describe(error)}
            if device.is_lost(error):
                raise


def run(settings: Settings, report: Report, dtype: str) -> None:
    device = open_device(settings)
    result: dict[str, Any] = {"dtype": dtype, "batch": settings.operator_batch, "rows": [], "bad": []}
    copy = Copy(device)
    copies: list[float] = []
    for shape in shapes(settings):
        copies.append(copy.gb_per_s())
        report.progress(f"{shape[0]} channels at {shape[1]}x{shape[1]}")
        for row in rows_of(shape, getattr(torch, dtype), device):
            result["rows"].append(row)
            if row["status"] == "wrong" or row.get("error") not in (None, "out of memory"):
                result["bad"].append(f"{row['operator']} {row['activation']} {dtype} {row['status']}: {row['error']}")
            report.result({**result, "copy_gb_per_s": {**asdict(spread(copies)), "rounds": copies}})
        device.forget()
