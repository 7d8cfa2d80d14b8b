"""The convolutions of ResNet-18, -34 and -50 at 224 x 224, and what is timed of each."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterator, NamedTuple

import torch
from torch import Tensor

import resnet_fused  # noqa: F401  registers torch.ops.resnet_fused
from resnet_fused import _cpu

ops = torch.ops.resnet_fused
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
PASSES = ("fprop", "infer", "dgrad", "wgrad")
MODELS = ("resnet18", "resnet34", "resnet50")


class Layer(NamedTuple):
    """A convolution with a square filter on a square image, and how often each of MODELS has it."""

    C: int
    K: int
    side: int
    kernel: int
    stride: int
    counts: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.C}-{self.K}@{self.side} {self.kernel}x{self.kernel}/{self.stride}"

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def out_side(self) -> int:
        return (self.side + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def passes(self) -> tuple[str, ...]:
        """The stem reads images, which need no gradient."""
        return tuple(which for which in PASSES if self.C != 3 or which != "dgrad")

    def operations(self, batch: int) -> int:
        """Additions and multiplications of the direct sum."""
        return 2 * batch * self.out_side**2 * self.K * self.C * self.kernel**2


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
    """An affine [4, C], the same for each channel."""
    return torch.tensor(values).view(4, 1).repeat(1, channels)


def pooled(x: Tensor) -> Tensor:
    """A copy in the memory of our operators' results: outside huge pages, timings vary by a fifth."""
    return ops.bn_apply(x, affine_rows(x.shape[1], (0.0, 1.0, 0.0, 1.0)), False)


class Work:
    """One layer's tensors; `ours[pass]()` and `torch[pass, layout]()` run it.

    Ours do with it what a network fuses into it; torch's is the convolution alone.
    """

    def __init__(self, layer: Layer, batch: int) -> None:
        torch.manual_seed(0)
        C, K, P = layer.C, layer.K, layer.out_side
        stride, padding = [layer.stride] * 2, [layer.padding] * 2
        geometry = (stride, padding, [1, 1], 1)
        inputs = torch.randn(batch, C, layer.side, layer.side), torch.randn(batch, K, P, P)
        weights = torch.randn(K, C, layer.kernel, layer.kernel) / (C * layer.kernel**2) ** 0.5
        both = {
            layout: ([pooled(t.contiguous(memory_format=f)) for t in inputs], weights.contiguous(memory_format=f))
            for layout, f in LAYOUTS.items()
        }
        (x, grad), weight = both["NHWC"]
        raw = pooled(torch.randn(batch, K, P, P).contiguous(memory_format=LAYOUTS["NHWC"]))
        prologue = None if C == 3 else affine_rows(C)  # images come as they are
        relu = prologue is not None
        affine, means = affine_rows(K), torch.full((2, K), 0.1)
        bn = (grad, None, raw, affine, means, True)
        self.ours: dict[str, Callable] = {
            "fprop": lambda: ops.conv_fprop(x, weight, *geometry, prologue, relu, True, None, None, None, False),
            "infer": lambda: ops.conv_fprop(x, weight, *geometry, None, False, False, affine, None, None, True),
            "dgrad": lambda: ops.conv_dgrad(*bn, x, weight, *geometry, prologue, relu, relu, None, None),
            "wgrad": lambda: ops.conv_wgrad(*bn, x, weight, *geometry, prologue, relu),
        }
        self.torch: dict[tuple[str, str], Callable] = {}
        for layout, ((x_, grad_), weight_) in both.items():

            def forward(x=x_, weight=weight_):
                return torch.conv2d(x, weight, None, stride, padding)

            def backward(mask, grad=grad_, x=x_, weight=weight_):
                return torch.ops.aten.convolution_backward(
                    grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, mask
                )

            self.torch["fprop", layout] = self.torch["infer", layout] = forward
            self.torch["dgrad", layout] = lambda run=backward: run([True, False, False])
            self.torch["wgrad", layout] = lambda run=backward: run([False, True, False])
        # Operands and results, each once: x, the output or its gradient, and weights. Our backward passes read raw as
        # well, and our dgrad x, for the mask and the sums of the layer before.
        self.torch_bytes = x.nbytes + grad.nbytes + weight.nbytes
        more = {"fprop": 0, "infer": 0, "dgrad": raw.nbytes + x.nbytes, "wgrad": raw.nbytes}
        self.ours_bytes = {which: self.torch_bytes + more[which] for which in PASSES}

    def contenders(self, which: str) -> dict[str, Callable]:
        """Who takes turns in a pass: ours, and torch in both layouts."""
        return {"ours": self.ours[which]} | {layout: self.torch[which, layout] for layout in LAYOUTS}


def algorithms(layer: Layer, batch: int) -> tuple[str, ...]:
    """What is timed of ours in float32: first the chosen algorithm, then the direct sum beside Winograd's.

    Winograd's needs enough tiles in the batch; "library" is chosen where ours would be slower.
    """
    chosen = _cpu.conv_algorithm(
        [batch, layer.C, layer.side, layer.side], [layer.K, layer.C, layer.kernel, layer.kernel],
        [layer.stride] * 2, [layer.padding] * 2, [1, 1], 1, "float32",
    )  # fmt: skip
    return (chosen, "direct") if chosen == "winograd" else (chosen,)


@contextmanager
def running(algorithm: str) -> Iterator[None]:
    """Within, Winograd's algorithm is off unless it is the one asked for."""
    before = _cpu.winograd()
    _cpu.set_winograd(algorithm == "winograd")
    try:
        yield
    finally:
        _cpu.set_winograd(before)
