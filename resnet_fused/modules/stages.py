"""Stages of residual blocks, run so that each block hands its input's gradient on (autograd/handover.py)."""

from __future__ import annotations

import contextlib
import itertools
import operator
import weakref
from typing import Callable, Hashable, Iterator, NamedTuple, Sequence

import torch
from torch import Tensor, nn

from resnet_fused import autograd, dispatch
from resnet_fused.autograd import handover
from resnet_fused.modules.blocks import BasicBlock, Bottleneck
from resnet_fused.modules.fused import CALLED, Ahead, FusedModule
from resnet_fused.modules.members import check_global_hooks, check_plain, holds
from resnet_fused.modules.residual import ResidualBlock
from resnet_fused.modules.snapshot import Snapshot


def run_stages(x: Tensor, stages: Sequence[nn.Module], owner: nn.Module) -> Tensor:
    """x through the owner's stages one after another, which are nn.Sequentials of blocks or any other modules.

    What one fused block leaves for the next nobody else sees, if neither they nor the nn.Sequential around them carry
    hooks. In graphs that are captured (torch.compile, torch.fx, torch.jit.trace) and where there are hooks on all
    modules stages are called as they are.
    """
    captured = not isinstance(x, Tensor) or torch.compiler.is_compiling() or torch.jit.is_tracing()
    if captured or not holds(check_global_hooks):
        for stage in stages:
            x = stage(x)
        return x
    with handover.together():
        ahead = _prepared_ahead(x, stages, owner)
        for run in ahead:
            x = run(x)
        for module in itertools.islice(_opened(stages), sum(len(run.modules) for run in ahead), None):
            if _keeps_nothing(module):
                x = module(x)
            else:
                handover.interrupt()
                with handover.together(False):
                    x = module(x)
    return x


class _Run(NamedTuple):
    """Units prepared ahead that follow each other, in one call of an operator."""

    modules: list[FusedModule]
    choices: list[dispatch.Choice]
    strides: tuple[int, ...]  # of the input that they were chosen for
    chains: Callable[[Tensor, list[Tensor], list[Tensor | None]], Tensor]
    weights: list[Tensor]
    norms: list[Tensor | None]

    @classmethod
    def of(cls, units: Sequence[Ahead]) -> _Run:
        frozen = [unit.frozen for unit in units]
        chains = autograd.frozen_chains([each.chain for each in frozen])
        weights, norms = [t for each in frozen for t in each.weights], [t for each in frozen for t in each.norms]
        modules, strides, choices, _ = zip(*units)
        return cls(list(modules), list(choices), strides[0], chains, weights, norms)

    def __call__(self, x: Tensor) -> Tensor:
        if x.stride() != self.strides:
            for module in self.modules:
                x = module(x)
            return x
        for module, choice in zip(self.modules, self.choices):
            module.note_ahead(choice)
        return self.chains(x, self.weights, self.norms)

    def kept(self) -> _Run:
        """With references to its modules and tensors in their place, which keep nothing alive."""
        return self._replace(**{name: list(map(_weak, getattr(self, name))) for name in _REFERRED})

    def alive(self) -> _Run:
        """What was kept, as it was."""
        return self._replace(**{name: [ref() for ref in getattr(self, name)] for name in _REFERRED})


_REFERRED = ("modules", "weights", "norms")


def _weak(value: object) -> Callable[[], object]:
    return _nothing if value is None else weakref.ref(value)


def _nothing() -> None:
    return None


class _Plans(NamedTuple):
    """What an owner's stages are for each kind of input, while their modules are what they were."""

    stages: list[weakref.ref[nn.Module]]
    snapshot: Snapshot
    runs: dict[Hashable, list[_Run]]

    def holds(self, stages: Sequence[nn.Module]) -> bool:
        same = len(stages) == len(self.stages) and all(map(operator.is_, stages, [stage() for stage in self.stages]))
        return same and self.snapshot.holds()


_MOST_KINDS = 8  # of input
_SMALL = 8 * 64 * 56 * 56  # elements: of eight images of 224 x 224 before the first stage
_METHODS = (*CALLED, "members", "identity", "final_relu", "in_place_sum")
# None: nothing is kept yet, for in the call before the modules were others, as those of functional_call always are.
_plans: weakref.WeakKeyDictionary[nn.Module, _Plans | None] = weakref.WeakKeyDictionary()


def _prepared_ahead(x: Tensor, stages: Sequence[nn.Module], owner: nn.Module) -> list[_Run]:
    """The first of the modules, those that can be prepared before any of them has run: in inference on a CPU.

    A convolution sweeps the caches, of Python's code and data too: to prepare a block takes longer behind one that has
    run than behind one that was prepared, and either takes longer than a small convolution. So what was prepared is kept
    for the next calls, as long as nothing has changed.
    """
    if torch.is_grad_enabled() or type(x) is not Tensor or x.device.type != "cpu":
        return []
    if dispatch.measures("cpu") or torch.is_autocast_enabled("cpu") or _is_watched():
        return []
    kind = (x.dtype, x.shape, x.stride(), dispatch.situation(x))
    seen, plans = owner in _plans, _plans.get(owner)
    if plans is not None:
        runs = [run.alive() for run in plans.runs.get(kind, ())]  # from here on, if the snapshot holds
        if not plans.holds(stages):
            plans = seen = None
        elif runs:
            return runs
    units, is_whole = _prepare(x, stages)
    if plans is None:
        _plans[owner] = None
        if seen and is_whole:
            with contextlib.suppress(Exception):  # a tensor of some other kind
                plans = _Plans(list(map(weakref.ref, stages)), Snapshot(stages, _METHODS), {})
                units, is_whole = _prepare(x, stages)  # of what the snapshot shows, or it will not hold
    runs = list(map(_Run.of, _joined(x, units)))
    # Another thread may have lent the modules other tensors meanwhile, as functional_call does.
    if plans is not None and is_whole and all(plans.snapshot.has(run.weights + run.norms) for run in runs):
        for oldest in list(plans.runs)[: 1 - _MOST_KINDS]:
            plans.runs.pop(oldest, None)
        plans.runs[kind] = [run.kept() for run in runs]
        _plans[owner] = plans
    return runs


def _joined(x: Tensor, units: list[Ahead]) -> Iterator[list[Ahead]]:
    """The units that run in one call each.

    What Python does between two blocks takes a sixth of a small convolution's time, behind one that has swept the
    caches. Large inputs are left divided, for Ctrl-C to be heard. So are units whose input may come in other strides
    than it was expected in: engines differ in what a format is where there is one pixel, or one channel.
    """
    run: list[Ahead] = []
    for unit in units:
        if run:
            before = run[-1].frozen
            foreseen = 1 not in before.size[1:] and all(len(weight) > 1 for weight in before.weights)
            if x.numel() > _SMALL or not foreseen or unit.choice.backend != run[-1].choice.backend:
                yield run
                run = []
        run.append(unit)
    if run:
        yield run


def _prepare(x: Tensor, stages: Sequence[nn.Module]) -> tuple[list[Ahead], bool]:
    """The units, and whether these are all modules, and of kinds whose members depend on nothing else."""
    units: list[Ahead] = []
    modules = list(_opened(stages))
    for module in modules:
        if not isinstance(module, FusedModule) or not _is_plain(module):
            return units, False
        x = units[-1].frozen.empty(x) if units else x
        if (unit := module.ahead(x)) is None:
            return units, False
        units.append(unit)
    return units, bool(units) and all(type(module) in (BasicBlock, Bottleneck) for module in modules)


def _is_watched() -> bool:
    """Whether somebody would see memory that is allocated and not used, or it be filled."""
    modes = torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack()
    filled = torch.are_deterministic_algorithms_enabled() and torch.utils.deterministic.fill_uninitialized_memory
    return modes > 0 or filled or not autograd.unobserved(())


def _opened(stages: Sequence[nn.Module]) -> Iterator[nn.Module]:
    for stage in stages:
        if type(stage) is nn.Sequential and _is_plain(stage):
            yield from stage
        else:
            yield stage


def _keeps_nothing(module: nn.Module) -> bool:
    """A fused block whose input and output only its caller has; a subclass's forward may do anything with them."""
    return type(module).forward in (FusedModule.forward, ResidualBlock.forward) and _is_plain(module)


def _is_plain(module: nn.Module) -> bool:
    return holds(check_plain, module) and module._compiled_call_impl is None
