"""What a network consists of, layer by layer: sizes, parameters, multiply-adds, and bytes kept for the backward pass.

Counted from shapes: the network's children are called one by one on the meta device, where nothing is computed.
Multiply-adds are those of convolutions (N·K·P·Q·C/groups·R·S) and linear layers (N·out·in), as in the papers' tables.

Kept between a training step's forward and backward pass, per layer, by formula:

    eager    the network's input; of each batch norm its input, the convolution's output; of each ReLU its output
    fused    the same but the outputs of the ReLUs within a unit: those before a convolution of the unit or the stem's
             pool, and the one behind a lone batch norm

so eager keeps each convolution's output and the activation behind it, a fused unit one of the two. A max pool keeps its
output, for the next convolution, and indices: 8 bytes each, in a fused stem 1. Layers that feed a linear layer keep
their output, dropout a mask besides, as on a CPU of as many bytes. Products keep what they multiply, eager and fused
alike: squeeze-and-excitation the residual function, gates g, 1 − g, the shortcut, and if exclusive the residual
function. Left out are vectors of a channel, or of an image's channels, and what a GPU's kernels keep besides: of a ReLU
behind a sum a bit for each element.
"""

from __future__ import annotations

import copy
import math
from typing import Callable, NamedTuple

import torch
from torch import Tensor, nn

from resnet_fused.models.cifar import PaddedBlock
from resnet_fused.models.conv_chain import ConvFeatures
from resnet_fused.modules import (
    FusedModule,
    NormAct,
    PreactivationBlock,
    ReluBeforeAdditionBlock,
    ReluPreactivationBlock,
    ResidualBlock,
    shortcuts,
)
from resnet_fused.modules.members import Obstacle
from resnet_fused.modules.torchvision import FrozenBatchNorm2d

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_NORMS = (nn.modules.batchnorm._NormBase, FrozenBatchNorm2d)
_SHORTCUTS = {
    shortcuts.ZeroPadding: "padded", shortcuts.Projection: "projection", nn.Conv2d: "projection",
    shortcuts.AveragePoolProjection: "average pool", shortcuts.ConstantScaling: "scaling",
    shortcuts.ExclusiveGating: "exclusive gating", shortcuts.ShortcutOnlyGating: "shortcut gating",
    shortcuts.DropoutShortcut: "dropout",
}  # fmt: skip


class Layer(NamedTuple):
    """One call of a layer. `unit`: the name of the block that it belongs to, where there is a shortcut around it."""

    name: str
    kind: str  # input, conv, norm, relu, pool, linear, dropout or other
    text: str
    size: tuple[int, ...]  # of its output
    parameters: int
    multiply_adds: int
    kept_eager: int  # bytes
    kept_fused: int
    unit: str | None = None
    shortcut: str | None = None  # identity, projection, padded, average pool, or what weighs it: scaling, gating, …
    in_shortcut: bool = False  # or otherwise beside the layers that a network's depth counts


class _Unit(NamedTuple):
    name: str
    inner_relus: range  # calls of ReLU, from 1 on, whose outputs are kept by eager alone
    pool: bool
    shortcut: str | None
    beside: frozenset  # leaves that are not of the main branch
    sum_behind: int = 0  # the call of ReLU behind which there is a sum that the next convolution reads


def layers(model: nn.Module, size: tuple[int, ...], itemsize: int = 4) -> tuple[Layer, ...]:
    """Every layer of `model` in the order of calls, for images of size (N, C, H, W) and `itemsize` bytes a value.

    Works on a copy of the model, which is left alone; it may be on the meta device itself. The kept bytes are those of
    the model's ReLUs working in place, as they do in all networks here. Raises RuntimeError where the images are too
    small for the network.
    """
    model = copy.deepcopy(model).to("meta").eval()
    x = torch.empty(size, device="meta", dtype=next(model.parameters()).dtype)
    count = _Count(model, itemsize)
    count.add_input(x)
    for leaf in model.modules():
        if not list(leaf.children()):
            leaf.register_forward_hook(count.add)
        if isinstance(leaf, _NORMS):
            leaf.forward = lambda x: x  # no shape changes, and on the meta device it takes milliseconds
    for block in model.modules():
        if isinstance(block, ResidualBlock):
            count.add_products(block)
    with torch.no_grad():
        model(x)
    return tuple(count.layers)


class _Count:
    def __init__(self, model: nn.Module, itemsize: int) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self.units = _units_by_leaf(model, self.names)
        self.itemsize = itemsize
        self.layers: list[Layer] = []
        self.relus: dict[_Unit, int] = {}  # called so far
        self.seen: set[nn.Module] = set()
        self.entries = {
            block.entry for block in model.modules()
            if isinstance(block, ReluPreactivationBlock) and not (block.shortcut is None and _is_gated(block))
        }  # fmt: skip

    def add_input(self, x: Tensor) -> None:
        kept = x.numel() * self.itemsize
        self.layers.append(Layer("", "input", "input", tuple(x.shape), 0, 0, kept, kept))

    def add(self, leaf: nn.Module, inputs: tuple[Tensor], out: Tensor | shortcuts.Terms) -> None:
        """The forward hook of every leaf."""
        unit = self.units.get(leaf)
        out = out.shortcut if isinstance(out, shortcuts.Terms) else out
        eager, fused = self._kept(leaf, inputs[0].numel(), out.numel(), unit)
        parameters = 0 if leaf in self.seen else sum(p.numel() for p in leaf.parameters())
        self.seen.add(leaf)
        if leaf in self.entries:
            self._drop_what_it_reads()
        layer = Layer(self.names[leaf], _kind(leaf), _text(leaf), tuple(out.shape), parameters,
                      _multiply_adds(leaf, out), eager, fused)  # fmt: skip
        if unit is not None and unit.shortcut is not None:
            layer = layer._replace(unit=unit.name, shortcut=unit.shortcut, in_shortcut=leaf in unit.beside)
        self.layers.append(layer)

    def add_products(self, block: ResidualBlock) -> None:
        """Hooks that count what a block multiplies. A ReLU that ends the residual function keeps it already."""
        relu_ends, excites = isinstance(block, ReluBeforeAdditionBlock), block.excitation is not None
        if excites:
            self._count_product(block, block.excitation, lambda: not relu_ends)
        if _is_gated(block):
            function = isinstance(block.gate, shortcuts.ExclusiveGating) and (excites or not relu_ends)
            self._count_product(block, block.gate, lambda: 2 + function + self._gate_keeps(block))

    def _drop_what_it_reads(self) -> None:
        """A ReLU that reads a unit's activated output keeps its own; the unit keeps none."""
        i = max(i for i, layer in enumerate(self.layers) if not layer.in_shortcut)
        if self.layers[i].kind == "relu":
            self.layers[i] = self.layers[i]._replace(kept_fused=0)

    def _gate_keeps(self, block: ResidualBlock) -> bool:
        """Whether what it has just read is kept by nothing else: a block's input is, unless the next that reads it is a
        ReLU, and the one before was none."""
        before = self.layers[-2]  # the gate's convolution
        return block.shortcut is not None or (isinstance(block, ReluPreactivationBlock) and before.kind != "relu")

    def _count_product(self, block: ResidualBlock, part: nn.Module, tensors: Callable[[], int]) -> None:
        """part keeps so many tensors of its input's size, by a product."""
        unit = _unit_of_block(block, self.names[block])

        def add(part: nn.Module, inputs: tuple[Tensor], _) -> None:
            kept = tensors() * inputs[0].numel() * self.itemsize
            self.layers.append(Layer(self.names[part], "other", type(part).__name__, tuple(inputs[0].shape), 0, 0, kept,
                                     kept, unit.name, unit.shortcut, True))  # fmt: skip

        part.register_forward_hook(add)

    def _kept(self, leaf: nn.Module, taken: int, given: int, unit: _Unit | None) -> tuple[int, int]:
        """Bytes that eager keeps of this layer, and fused; see the file's docstring."""
        values = given * self.itemsize
        if isinstance(leaf, _NORMS):
            return (taken * self.itemsize,) * 2
        if isinstance(leaf, nn.ReLU):
            call = 0 if unit is None else self._relu_call(unit)
            sum_behind = values if unit is not None and call == unit.sum_behind else 0
            inner = unit is not None and call in unit.inner_relus
            return values + sum_behind, sum_behind + (0 if inner else values)
        if isinstance(leaf, nn.MaxPool2d):
            return values + 8 * given, values + (1 if unit is not None else 8) * given
        if isinstance(leaf, nn.Dropout):  # a shortcut's is added, and not kept
            return (values if unit is not None and leaf in unit.beside else 2 * values,) * 2
        return (values if isinstance(leaf, _POOLS) else 0,) * 2

    def _relu_call(self, unit: _Unit) -> int:
        self.relus[unit] = self.relus.get(unit, 0) + 1
        return self.relus[unit]


def _units_by_leaf(model: nn.Module, names: dict[nn.Module, str]) -> dict[nn.Module, _Unit]:
    found = {}
    for module, name in names.items():
        parts = module.parts() if isinstance(module, ConvFeatures) else [module]
        for part in parts:
            if isinstance(part, FusedModule):
                found.update(_leaves_of(part, names.get(part, name)))
    return found


def _leaves_of(module: FusedModule, name: str) -> dict[nn.Module, _Unit]:
    """A unit's leaves; none where its structure is not what is fused."""
    if isinstance(module, ResidualBlock):
        unit = _unit_of_block(module, name)
        found = {leaf: unit for leaf in module.modules() if not list(leaf.children())}
        if isinstance(module, ReluPreactivationBlock):
            found[module.entry] = unit._replace(inner_relus=range(0))
        return found
    if isinstance(module, shortcuts.Projection):  # within a block, whose unit its leaves are of
        return {}
    if isinstance(module, NormAct):
        return {module.relu: _Unit(name, range(1, 2), False, None, frozenset())}
    try:
        members = module.members()
    except Obstacle:
        return {}
    projection = frozenset(child for pair in members.projection for child in pair)
    pool = members.pool is not None
    inner = len(members.main) - (not pool)
    unit = _Unit(name, range(1, inner + 1), pool, _shortcut(module, bool(projection)), projection)
    # A network that is the unit of its own stem has more leaves than the unit.
    leaves = members.all() if unit.pool else module.modules()
    return {leaf: unit for leaf in leaves if not list(leaf.children())}


def _unit_of_block(block: ResidualBlock, name: str) -> _Unit:
    beside = (part for part in (block.shortcut, block.gate, block.excitation) if part is not None)
    leaves = frozenset(leaf for part in beside for leaf in part.modules())
    last = sum(bn is not None for bn in block.norms())  # call of ReLU
    relu_ends = isinstance(block, ReluBeforeAdditionBlock)
    multiplied = block.excitation is not None or isinstance(block.gate, shortcuts.ExclusiveGating)
    # The last ReLU's output leaves a unit, unless it is summed there at once; with pre-activation there is none.
    within = not multiplied if relu_ends else isinstance(block, PreactivationBlock)
    inner = range(2 if _activates_first(block) else 1, last + within)
    return _Unit(name, inner, False, _words_of(block), leaves, last if relu_ends else 0)


def _is_gated(block: ResidualBlock) -> bool:
    return isinstance(block.gate, shortcuts.Gate)


def _activates_first(block: ResidualBlock) -> bool:
    """Whether a unit of its own leaves what the residual function and a projection read."""
    composed = block.gate is not None or block.excitation is not None or block.stochastic_depth > 0
    return isinstance(block, PreactivationBlock) and composed and block.projects() and block.norms()[0] is not None


def _words_of(block: ResidualBlock) -> str:
    for part in (block.gate, block.shortcut):
        if type(part) in _SHORTCUTS:
            return _SHORTCUTS[type(part)]
    return "identity"


def _shortcut(module: FusedModule, projects: bool) -> str | None:
    if isinstance(module, PaddedBlock):
        return "padded"
    return "projection" if projects else "identity" if module.identity() else None


def _multiply_adds(leaf: nn.Module, out: Tensor) -> int:
    if isinstance(leaf, nn.Conv2d):
        return out.numel() * leaf.weight[0].numel()
    return out.numel() * leaf.in_features if isinstance(leaf, nn.Linear) else 0


def _kind(leaf: nn.Module) -> str:
    kinds = {"conv": nn.Conv2d, "norm": _NORMS, "relu": nn.ReLU, "pool": _POOLS, "linear": nn.Linear,
             "dropout": nn.Dropout}  # fmt: skip
    return next((kind for kind, types in kinds.items() if isinstance(leaf, types)), "other")


def _text(leaf: nn.Module) -> str:
    """As the papers' tables and figures write it: 3x3 conv, 64, /2."""
    if isinstance(leaf, nn.Conv2d):
        words = [f"{_by(leaf.kernel_size)} conv", str(leaf.out_channels), *_stride(leaf)]
        return ", ".join([*words, f"{leaf.groups} groups"] if leaf.groups > 1 else words)
    if isinstance(leaf, nn.MaxPool2d):
        return ", ".join((f"{_by(leaf.kernel_size)} max pool", *_stride(leaf)))
    if isinstance(leaf, nn.AdaptiveAvgPool2d):
        return f"average pool to {_by(leaf.output_size)}"
    return f"fc {leaf.out_features}" if isinstance(leaf, nn.Linear) else type(leaf).__name__


def _by(extent) -> str:
    return "x".join(map(str, extent if isinstance(extent, tuple) else (extent, extent)))


def _stride(leaf: nn.Module) -> list[str]:
    stride = leaf.stride if isinstance(leaf.stride, tuple) else (leaf.stride,)
    return [] if math.prod(stride) == 1 else [f"/{stride[0]}"]
