"""Residual blocks of every ordering, layers and shortcut, drawn small and clear of their ReLUs' kinks."""

from __future__ import annotations

import copy
import itertools
from typing import NamedTuple

import torch
from torch import nn

import resnet_fused
from resnet_fused.modules import ORDERINGS, BlockLayers, BlockOptions, record
from resnet_fused.modules.shortcuts import SHORTCUTS, Gate

MODES = ("training", "frozen", "inference")


class Variant(NamedTuple):
    kind: str
    ordering: str
    shortcut: str
    changes: bool  # the shape
    reduction: int | None = None
    stochastic_depth: float = 0.0

    @property
    def id(self) -> str:
        words = [self.kind, self.ordering, self.shortcut, "changes" if self.changes else "stays"]
        words += ["se"] if self.reduction else []
        return "-".join(words + (["sd"] if self.stochastic_depth else []))

    def inplanes(self) -> int:
        if self.changes:
            return 3 if self.kind == "basic" else 5
        return 4 if self.kind == "basic" else 8

    def build(self, norm_layer=None) -> nn.Module:
        planes = 4 if self.kind == "basic" else 2
        change = "padded" if self.kind == "basic" else "projection"
        options = BlockOptions(self.shortcut, change, norm_layer, self.reduction, self.stochastic_depth)
        stride = 2 if self.changes else 1
        return ORDERINGS[self.ordering](self.inplanes(), planes, stride, BlockLayers(self.kind), options)


PLAIN = [Variant(*v) for v in itertools.product(("basic", "bottleneck"), ORDERINGS, SHORTCUTS, (False, True))]
EXTRAS = [
    Variant(kind, ordering, shortcut, changes, *extra)
    for kind, ordering, (shortcut, changes), extra in itertools.product(
        ("basic", "bottleneck"), ORDERINGS,
        (("projection", False), ("convolution", True), ("exclusive_gating", False)), ((2, 0.0), (None, 0.4), (2, 0.4)),
    )
]  # fmt: skip
ALL = PLAIN + EXTRAS
# Each ordering with each shortcut once; layers and changes of shape take turns. Besides, some with additions, and what
# differs where a projection reads the activated input but is not within the unit.
FEW = [
    *(Variant(("basic", "bottleneck")[(i + i // 8) % 2], *names, bool((i // 2 + i // 8) % 2))
      for i, names in enumerate(itertools.product(ORDERINGS, SHORTCUTS))),
    *EXTRAS[::7],
    *(v for v in EXTRAS if v.changes and v.kind == "basic" and v.stochastic_depth and not v.reduction),
    *(Variant("bottleneck", ordering, "scaling", True) for ordering in ORDERINGS),
]  # fmt: skip


def draw(
    variant: Variant, mode: str, margin: float, dtype=torch.float64, prepare=lambda block: None
) -> tuple[nn.Module, torch.Tensor]:  # fmt: skip
    """A block in float64 as after some training, and an input, exact in `dtype`; no ReLU's argument is nearer to 0.

    prepare: changes the block that was drawn.
    """
    for seed in range(500):
        torch.manual_seed(seed)
        block = variant.build().double()
        with torch.no_grad():
            for module in block.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.5)
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.5, 1.5)
                elif isinstance(module, Gate):
                    module.conv.bias.normal_()
        prepare(block)
        block.train(mode != "inference")
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(mode == "training")
        x = torch.randn(3, variant.inplanes(), 5, 4, dtype=torch.float64)
        with torch.no_grad():
            for tensor in (*block.parameters(), *(b for b in block.buffers() if b.is_floating_point()), x):
                tensor.copy_(tensor.to(dtype))
        if _distance(block, x) > margin:
            return block, x
    raise AssertionError("no draw keeps clear of the kinks")


def _distance(block: nn.Module, x: torch.Tensor) -> float:
    """Smallest |argument| of any ReLU in the eager forward."""
    smallest, real = [], torch.relu
    block = copy.deepcopy(block)
    for module in block.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(lambda _, inputs: smallest.append(inputs[0].abs().min().item()))
    torch.relu = lambda z: (smallest.append(z.abs().min().item()), real(z))[1]  # squeeze-and-excitation's
    try:
        with torch.no_grad(), resnet_fused.backend("eager"):
            run_seeded(block, x)
    finally:
        torch.relu = real
    return min(smallest)


def run_seeded(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(11)  # of dropout and stochastic depth
    return block(x)


def results(block: nn.Module, x: torch.Tensor, backend: str) -> dict[str, torch.Tensor]:
    """Output, gradients and buffers of one step, every unit of which ran on `backend`."""
    leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with resnet_fused.backend(backend), record() as records:
        out = run_seeded(block, leaf)
    assert records and {r.backend for r in records} == {None if backend == "eager" else backend}, records
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).mul(7).cos().view(out.shape)
    out.backward(cotangent.to(out.dtype))
    found = {"out": out.detach(), "dx": leaf.grad}
    found |= {f"d {name}": p.grad for name, p in block.named_parameters()}
    return found | {name: buffer.clone() for name, buffer in block.named_buffers()}
