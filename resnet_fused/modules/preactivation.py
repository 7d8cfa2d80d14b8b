"""Batch norm and ReLU before convolutions: the pre-activation chain and a lone batch norm with ReLU, as units."""

from __future__ import annotations

from typing import Iterator, NamedTuple

from torch import Tensor, nn

from resnet_fused import autograd
from resnet_fused.autograd import BatchNorm, Conv
from resnet_fused.modules.fused import FusedModule, Prepared, autocast, backend_for, check_transforms
from resnet_fused.modules.members import (
    Branch,
    Obstacle,
    check_activation,
    check_bn,
    check_conv,
    check_global_hooks,
    check_norm,
    check_plain,
    check_shortcut,
    check_type,
    check_weight,
    group_of,
    is_shared,
    is_synchronized,
    may_be_empty,
    norm_of,
)
from resnet_fused.modules.problem import PreactivationProblem, gradients_of, is_channels_last

_ABSENT = BatchNorm(None, None, None, None)


class NormConv(NamedTuple):
    """A convolution and the batch norm before it; None: it reads its operand as it is."""

    bn: nn.Module | None
    conv: nn.Module


class PreMembers(NamedTuple):
    """The children of a pre-activation chain: the main branch in order, and the projection of the activated input."""

    main: tuple[NormConv, ...]
    relus: tuple[nn.Module, ...]
    projection: tuple[nn.Module, ...] = ()  # one convolution or none

    def convs(self) -> Iterator[nn.Module]:
        yield from (pair.conv for pair in self.main)
        yield from self.projection

    def norms(self) -> Iterator[nn.Module]:
        yield from (pair.bn for pair in self.main if pair.bn is not None)


class PreactivationUnit(NamedTuple):
    """What a pre-activation chain is made of; the shortcut: one of its own projection, the input, a tensor, or none."""

    members: PreMembers
    identity: bool = False
    shortcut: Tensor | None = None
    scale: float = 1.0  # of the last convolution's result


def _check_children(convs, norms, relus) -> None:
    check_global_hooks()
    for conv in convs:
        check_conv(conv)
        check_plain(conv)
    for bn in norms:
        check_bn(bn)
        check_plain(bn)
    for relu in relus:
        check_type(relu, nn.ReLU)
        check_plain(relu)


def _conv_of(conv: nn.Module) -> Conv:
    return Conv(conv.stride, conv.padding, conv.dilation, conv.groups)


def _norm_branch(bn: nn.Module) -> Branch:
    norm, frozen = norm_of(bn)
    return Branch(bn, autograd.Norm(not frozen, bn.eps, group_of(bn)), None, norm)


def _checked_operand(x: Tensor, *weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What the unit reads; autocast lowers only what convolutions read, behind the first batch norm."""
    operand, *weights = autocast(x, *weights)
    if operand.dtype != x.dtype:
        raise Obstacle("autocast leaves the batch norm before the convolution its own precision")
    return operand, weights


def _check_not_empty(size: tuple[int, ...], branches: list[Branch]) -> None:
    if 0 in size[1:] or (size[0] == 0 and not may_be_empty(branches)):
        raise Obstacle("the input is empty")


def _alone(branch: Branch) -> bool:
    """Whether it normalises by the statistics of this process's batch alone."""
    return branch.unit.batch_stats and branch.unit.group is None


def _check_sizes(members: PreMembers, branches: list[Branch], x: Tensor, weights) -> tuple[list, tuple[int, ...]]:
    """→ the sizes that the batch norms normalise, and the output's; Obstacle for what eager rejects."""
    about, size, sizes, norms = (x.dtype, x.device), tuple(x.shape), [], iter(branches)
    _check_not_empty(size, branches)
    for pair, weight in zip(members.main, weights):
        if pair.bn is not None:
            branch = next(norms)
            check_norm(size, *about, branch.bn, branch.norm, _alone(branch))
            sizes.append(size)
        size = check_weight(size, *about, weight, _conv_of(pair.conv))
    for conv in members.projection:
        if check_weight(tuple(x.shape), *about, weights[-1], _conv_of(conv)) != size:
            raise Obstacle("the shortcut's shape is not the main branch's")
    return sizes, size


def prepare_preactivation(x: Tensor, unit: PreactivationUnit) -> Prepared:
    """A pre-activation chain as a unit; Obstacle where it cannot run on x."""
    members, shortcut = unit.members, unit.shortcut
    convs = tuple(members.convs())
    _check_children(convs, members.norms(), members.relus)
    check_activation(x)
    operand, weights = _checked_operand(x, *(conv.weight for conv in convs))
    branches = [_norm_branch(bn) for bn in members.norms()]
    sizes, size = _check_sizes(members, branches, operand, weights)
    if unit.identity and size != tuple(x.shape):
        raise Obstacle("the shortcut's shape is not the main branch's")
    if shortcut is not None:
        check_shortcut(shortcut, operand, size)
    check_transforms(branches, is_shared(branches))
    norms = iter(branches)
    by_unit = [next(norms) if pair.bn is not None else None for pair in members.main]
    units = tuple(
        autograd.PreUnit(None if branch is None else branch.unit, _conv_of(pair.conv))
        for branch, pair in zip(by_unit, members.main)
    )
    projection = tuple(map(_conv_of, members.projection))

    def run(backend: str):
        backend = backend_for(backend, operand)
        spec = autograd.PreChain(backend, units, projection, unit.identity, shortcut is not None, unit.scale)
        used = [_ABSENT if branch is None else branch.used_norm() for branch in by_unit]
        parameters = tuple(zip(weights, (*used, *(_ABSENT for _ in projection))))
        out, statistics = autograd.preactivation_chain(spec, operand, parameters, shortcut)
        return out, [stats for stats, branch in zip(statistics, by_unit) if branch is not None]

    def problem():
        layouts = tuple(map(is_channels_last, (operand, *weights)))
        shapes = tuple(tuple(weight.shape) for weight in weights)
        tensors = (*weights, *(t for branch in branches for t in branch.norm if t is not None))
        return PreactivationProblem(
            operand.dtype, tuple(operand.shape), layouts, shapes, units, projection, unit.identity,
            shortcut is not None, gradients_of(operand, tensors),
        )  # fmt: skip

    return Prepared(operand, branches, sizes, problem, run, is_synchronized(branches))


def prepare_norm_act(x: Tensor, bn: nn.Module, relu: nn.Module) -> Prepared:
    """relu(bn(x)) as a unit; Obstacle where it cannot run on x."""
    _check_children((), (bn,), (relu,))
    check_activation(x)
    branch, size = _norm_branch(bn), tuple(x.shape)
    _check_not_empty(size, [branch])
    check_norm(size, x.dtype, x.device, bn, branch.norm, _alone(branch))
    check_transforms([branch], is_shared([branch]))

    def run(backend: str):
        out, stats = autograd.norm_act(backend_for(backend, x), branch.unit, x, branch.used_norm())
        return out, [stats]

    def problem():
        gradients = gradients_of(x, [t for t in branch.norm if t is not None])
        layouts = (is_channels_last(x),)
        return PreactivationProblem(x.dtype, size, layouts, (), (branch.unit,), (), False, False, gradients)

    return Prepared(x, [branch], [size], problem, run, is_synchronized([branch]))


class NormAct(FusedModule):
    """relu(bn(x)) as one unit, which keeps x alone for the backward pass; children bn and relu.

    x: [N, C, H, W] float32, float64, bfloat16 or float16 → the same size. Errors are eager's. What ends a network of
    pre-activation blocks: He et al. 2016 (Identity Mappings in Deep Residual Networks), appendix.
    """

    def __init__(self, channels: int, norm_layer=None) -> None:
        super().__init__()
        self.bn = (norm_layer or nn.BatchNorm2d)(channels)
        self.relu = nn.ReLU(inplace=True)

    def prepare(self, x: Tensor) -> Prepared:
        return prepare_norm_act(x, self.bn, self.relu)

    def eager_forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(x))
