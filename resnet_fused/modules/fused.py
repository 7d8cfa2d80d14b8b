"""FusedModule: runs its children as one fused unit where it can, and its eager forward where it cannot."""

from __future__ import annotations

import contextlib
from typing import Callable, Hashable, NamedTuple, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize

from resnet_fused import autograd, dispatch
from resnet_fused.autograd import BatchNorm, handover
from resnet_fused.modules.members import (
    Branch,
    Members,
    Obstacle,
    branches_of,
    check_activation,
    check_input,
    check_members,
    check_shortcut,
    is_shared,
    is_synchronized,
)
from resnet_fused.modules.problem import is_channels_last, problem_of
from resnet_fused.modules.running_statistics import tracks, update_running_statistics


class Record(NamedTuple):
    """What a fused module did in one call; `backend` is None where it ran its eager forward."""

    module: nn.Module
    backend: str | None
    reason: str
    unit: str = ""  # which, of a module that runs several


_records: list[Record] | None = None


@contextlib.contextmanager
def record(records: list[Record] | None = None):
    """Collects a Record of every call of a fused module while the context is open, in a list."""
    global _records
    previous, _records = _records, [] if records is None else records
    try:
        yield _records
    finally:
        _records = previous


@contextlib.contextmanager
def _unrecorded():
    global _records
    previous, _records = _records, None
    try:
        yield
    finally:
        _records = previous


class _Trial(nn.Module):
    """A fused module without what calling it would set off: its hooks, and in ResNet all behind the stem."""

    def __init__(self, module: FusedModule, call: tuple) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, x: Tensor) -> Tensor:
        return self.module.fused_forward(x, *self.call)


class Prepared(NamedTuple):
    """A unit for one input, checked; nothing was computed yet, nor changed."""

    operand: Tensor  # the input, in autocast's precision
    branches: list[Branch]  # whose batch norms it runs
    sizes: list[tuple[int, ...]]  # of what each of them normalises
    problem: Callable[[], Hashable]
    run: Callable[[str], tuple[Tensor, list]]  # on a backend → out, the batches' statistics by branch
    synchronized: bool = False  # the backend is chosen by rule: eager is another thing, or raises
    frozen: Callable[[str], Frozen] | None = None  # on a backend, if the unit can run on any input like this one


class Frozen(NamedTuple):
    """A unit of frozen batch norms, of whose input the size and the memory format are known."""

    chain: autograd.Chain
    weights: list[Tensor]
    norms: list[Tensor | None]
    size: tuple[int, ...]  # of its output
    channels_last: bool  # its output

    def empty(self, x: Tensor) -> Tensor:
        """Memory like its output's for an input like x."""
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        return torch.empty(self.size, dtype=x.dtype, device=x.device, memory_format=memory_format)


class Ahead(NamedTuple):
    """A unit that was prepared and chosen before its input was there."""

    module: FusedModule
    strides: tuple[int, ...]  # of the input that it was chosen for
    choice: dispatch.Choice
    frozen: Frozen


class ChainUnit(NamedTuple):
    """What a residual chain is made of."""

    members: Members
    final_relu: bool = True
    identity: bool = False
    in_place_sum: bool = True
    shortcut: Callable[[Tensor], Tensor | None] = lambda x: None
    scale: float = 1.0  # of the main branch: of its last batch norm's weight and bias


class FusedModule(nn.Module):
    """A module whose forward is one fused unit over its children.

    A subclass gives `members()` (raising Obstacle when its children have unknown structure), `identity` (whether the
    input is added) or `given_shortcut` (what else is), and `eager_forward`, the same computation by calling its
    children. The eager forward runs whenever anything is unusual: foreign or hooked children, inputs that eager rejects
    (so that its exception and its words are eager's own), dtypes or devices without kernels.

    nn.SyncBatchNorm is fused too, on CPUs as well, where eager's raises. Then all processes of its group must run the
    unit fused, or all eager: what they tell each other differs. A batch of no images takes part. Its derivatives are
    the gradients of one backward pass; a second derivative raises RuntimeError, and under torch.compile, functorch
    transforms and forward-mode AD eager has its say.
    """

    def members(self) -> Members:
        raise NotImplementedError

    def identity(self) -> bool:
        return False

    def given_shortcut(self, x: Tensor) -> Tensor | None:
        """What is added instead of the input or a projection, made of the input by PyTorch's operations."""
        return None

    def final_relu(self) -> bool:
        return True

    def in_place_sum(self) -> bool:
        """Whether eager adds the shortcut in place, which keeps the main branch's dtype under autocast."""
        return True

    def eager_forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.fused_forward(x)

    def prepare(self, x: Tensor, *call) -> Prepared:
        """Raises Obstacle where the unit cannot run fused on x."""
        unit = ChainUnit(
            self.members(), self.final_relu(), self.identity(), self.in_place_sum(), self.given_shortcut
        )
        return prepare_chain(x, unit)

    def fused_forward(self, x: Tensor, *call) -> Tensor:
        """`call`: what prepare and eager_forward take besides, of modules that run several units."""
        try:
            unit = self.prepare(x, *call)
        except Obstacle as obstacle:
            return self._eager(x, call, str(obstacle))
        if unit.synchronized:
            choice = dispatch.choose_shared(unit.operand)
        else:
            choice = dispatch.choose_for(unit.operand, unit.problem, lambda: self._trial(x, call))
        if choice.backend == dispatch.EAGER:
            if any(type(branch.bn) is nn.SyncBatchNorm for branch in unit.branches):  # which raises on CPUs
                return self._eager(x, call, choice.reason)
            self._note(call, None, choice.reason)
            with _children_apart():
                return self.eager_forward(x, *call)  # all that it would reject was an obstacle
        self._note(call, *choice)
        with _without_autocast(x.device.type):
            out, statistics = unit.run(choice.backend)
            if update_running_statistics(choice.backend, unit.branches, statistics, unit.sizes):
                self.statistics_updated()
                _save_something()
        return out

    def ahead(self, x: Tensor) -> Ahead | None:
        """For inputs like x, whose elements are not looked at; None where the module has to be called.

        Only where nothing is measured, differentiated or observed.
        """
        own, replaced = type(self), vars(self)
        if any(getattr(own, name) is not method or name in replaced for name, method in CALLED.items()):
            return None
        try:
            unit = self.prepare(x)
            if unit.frozen is None or unit.synchronized:
                return None
            choice = dispatch.choose_for(unit.operand, unit.problem)
            if choice.backend == dispatch.EAGER:
                return None
            return Ahead(self, x.stride(), choice, unit.frozen(choice.backend))
        except Exception:  # the call raises it, when what comes before has run
            return None

    def statistics_updated(self) -> None:
        """Called behind the update of running statistics by a fused call; for a subclass that has more to add."""

    def _trial(self, x: Tensor, call: tuple):
        """A function that runs this unit once on x, with the backward pass that would follow; nothing is left of it.

        None where the weights are computed from parameters that are not this module's, as in DataParallel's replicas.
        """
        layers = (m for m in self.modules() if isinstance(m, (nn.Conv2d, nn.modules.batchnorm._NormBase)))
        weights = (m.weight for m in layers if not parametrize.is_parametrized(m) and m.weight is not None)
        if not all(weight.is_leaf for weight in weights):
            return None
        state = {name: p.detach().requires_grad_(p.requires_grad) for name, p in self.named_parameters()}
        state |= {name: buffer.detach().clone() for name, buffer in self.named_buffers()}
        state = {f"module.{name}": tensor for name, tensor in state.items()}
        x, unit = x.detach().requires_grad_(x.requires_grad), _Trial(self, call)

        def run():
            with _unrecorded(), handover.together(False):
                out = torch.func.functional_call(unit, state, (x,))
            if out.requires_grad:
                inputs = [t for t in (x, *state.values()) if t.requires_grad]
                torch.autograd.grad(out, inputs, out.detach(), allow_unused=True)  # a ResNet has more than its stem

        return run

    def unit_name(self, *call) -> str:
        """Which unit this call runs, of modules that run several."""
        return ""

    def note_ahead(self, choice: dispatch.Choice) -> None:
        """That a unit prepared by `ahead` runs."""
        self._note((), *choice)

    def _note(self, call: tuple, backend: str | None, reason: str) -> None:
        if _records is not None:
            _records.append(Record(self, backend, reason, self.unit_name(*call)))

    def _eager(self, x: Tensor, call: tuple, reason: str) -> Tensor:
        """The eager forward; where it raises, the batch norms are left as they were."""
        self._note(call, None, reason)
        with statistics_restored_on_error(self), _children_apart():
            return self.eager_forward(x, *call)


# What a call of a module comes to, and its unit is made of, unless somebody replaces it.
CALLED = {
    "__call__": nn.Module.__call__,
    "_call_impl": nn.Module._call_impl,
    **{name: getattr(FusedModule, name) for name in ("forward", "fused_forward", "prepare", "given_shortcut")},
}


def _children_apart():
    """Fused modules among a block's children hand nothing over: they may be watched."""
    return contextlib.nullcontext() if torch.compiler.is_compiling() else handover.together(False)


@contextlib.contextmanager
def statistics_restored_on_error(module: nn.Module):
    """Where an exception passes, the running statistics of the module's batch norms are put back."""
    if torch.compiler.is_compiling():
        yield
        return
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
    buffers = [buffer for norm in norms for buffer in norm.buffers(False) if not buffer.is_meta]  # which hold nothing
    before = [buffer.detach().clone() for buffer in buffers]
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "_StopRecomputationError":  # how a checkpoint ends its recomputation
            raise
        with torch.no_grad():
            for buffer, value in zip(buffers, before):
                if not torch.equal(buffer, value):  # a functorch transform forbids writing at all
                    buffer.copy_(value)
        raise


def prepare_chain(x: Tensor, chain: ChainUnit) -> Prepared:
    """A residual chain as a unit; Obstacle where it cannot run on x."""
    members, identity = chain.members, chain.identity
    check_members(members)
    check_activation(x)
    branches, main = branches_of(members, chain.final_relu), len(members.main)
    if chain.scale != 1:
        branches[main - 1] = _scaled(branches[main - 1], chain.scale)
    operand, *weights = autocast(x, *(branch.weight for branch in branches))
    sizes = check_input(branches, main, operand, weights, identity)
    if identity and operand.dtype != x.dtype and not chain.in_place_sum:
        raise Obstacle("autocast promotes the sum with its input")
    check_transforms(branches, is_shared(branches))
    shortcut = chain.shortcut(operand)
    if shortcut is not None:
        check_shortcut(shortcut, operand, sizes[main - 1])
    given, pool = shortcut is not None, members.pool is not None
    units = tuple(branch.unit for branch in branches)

    def parameters():
        return tuple(zip(weights, (branch.used_norm() for branch in branches)))

    def spec_on(backend: str):
        return autograd.Chain(backend_for(backend, operand), units[:main], units[main:], identity, given)

    def run(backend: str):
        if pool:
            backend, ((weight, norm),) = backend_for(backend, operand), parameters()
            out, *statistics = autograd.stem(backend, units[0], operand, weight, norm)
            return out, statistics
        return autograd.residual_chain(spec_on(backend), operand, parameters(), shortcut)

    def frozen(backend: str):
        channels_last = any(map(is_channels_last, (operand, *weights[:main])))
        return Frozen(spec_on(backend), *autograd.frozen_tensors(parameters()), sizes[main - 1], channels_last)

    def problem():
        return problem_of(branches, main, identity, given, pool, operand, weights)

    ahead = not (given or pool or any(unit.batch_stats for unit in units))
    return Prepared(operand, branches, sizes, problem, run, is_synchronized(branches), frozen if ahead else None)


def backend_for(backend: str, x: Tensor) -> str:
    """The reference alone takes a shard without images."""
    return backend if x.shape[0] else "reference"


def _scaled(branch: Branch, scale: float) -> Branch:
    """scale·z(x) is z(x) with another weight and bias."""
    weight, bias, mean, var = branch.norm
    if weight is None:
        raise Obstacle("a batch norm without a weight cannot be scaled")
    return branch._replace(norm=BatchNorm(weight * scale, bias if bias is None else bias * scale, mean, var))


def autocast(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """What autocast would hand to the convolutions: float32 operands in its lower precision."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return (x, *weights)
    dtype = torch.get_autocast_dtype(device)
    return tuple(t.to(dtype) if t.dtype in (torch.float32, torch.float16, torch.bfloat16) else t for t in (x, *weights))


def _without_autocast(device: str):
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def check_transforms(branches: list[Branch], shared: bool = False) -> None:
    """Running statistics cannot be updated under a functorch transform as after it; and of statistics that are shared
    between processes there are the gradients of one backward pass, no other derivatives. Eager says what eager does."""
    if shared and torch.compiler.is_compiling():
        raise Obstacle("synchronized batch norms are not compiled")
    if shared and forward_ad._current_level >= 0:
        raise Obstacle("synchronized batch norms have no forward-mode derivative")
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is None:
        return
    if shared:
        raise Obstacle("synchronized batch norms are under a functorch transform")
    if any(map(tracks, branches)):
        raise Obstacle("running statistics are updated under a functorch transform")


def _save_something() -> None:
    """Saves a scalar for a backward nobody runs, where somebody watches what is saved.

    A checkpoint's recomputation stops at the last tensor saved. Eager's is its last ReLU's, behind the running
    statistics' second update; ours would be before it.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        torch.zeros((), requires_grad=True).square()
