"""Which child modules make up a fused unit, and what keeps a unit from being fused."""

from __future__ import annotations

from typing import Callable, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from resnet_fused.autograd import BatchNorm, Conv, Unit
from resnet_fused.autograd.chain import output_size
from resnet_fused.modules.torchvision import FrozenBatchNorm2d


class ConvBN(NamedTuple):
    conv: nn.Module
    bn: nn.Module


class Members(NamedTuple):
    """The children of a unit: the main branch in order, the projection if any, and all else that eager would call."""

    main: tuple[ConvBN, ...]
    relus: tuple[nn.Module, ...]
    projection: tuple[ConvBN, ...] = ()
    containers: tuple[nn.Module, ...] = ()
    pool: nn.Module | None = None

    def branches(self) -> tuple[ConvBN, ...]:
        return (*self.main, *self.projection)

    def all(self):
        yield from (child for pair in self.branches() for child in pair)
        yield from self.relus
        yield from self.containers
        if self.pool is not None:
            yield self.pool


class Obstacle(Exception):
    """Why a unit runs its eager forward; never leaves the package."""


def holds(check: Callable[..., None], *arguments) -> bool:
    """Whether the check raises no Obstacle."""
    try:
        check(*arguments)
    except Obstacle:
        return False
    return True


def check_type(child: nn.Module, *expected: type) -> None:
    if type(child) not in expected:
        names = " or ".join(t.__name__ for t in expected)
        raise Obstacle(f"it holds a {type(child).__name__} where a {names} is fused")


def check_plain(child: nn.Module) -> None:
    """Nothing is attached to the child that calling it would run and fusing it would not."""
    if (
        child._forward_hooks
        or child._forward_pre_hooks
        or child._backward_hooks
        or child._backward_pre_hooks
        or "forward" in child.__dict__
    ):
        raise Obstacle(f"its inner {type(child).__name__} carries hooks or a replaced forward")


def check_conv(conv: nn.Conv2d) -> None:
    check_type(conv, nn.Conv2d)
    if conv.bias is not None:
        raise Obstacle("a convolution has a bias")
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise Obstacle(f"a convolution pads by {conv.padding if conv.padding_mode == 'zeros' else conv.padding_mode!r}")


def check_bn(bn: nn.Module) -> None:
    check_type(bn, nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
    if (bn.running_mean is None) != (bn.running_var is None) or bn.eps <= 0:
        raise Obstacle("a batch norm's settings are not valid")
    if type(bn) is nn.SyncBatchNorm and bn.track_running_stats and bn.num_batches_tracked is None:
        raise Obstacle("a batch norm's settings are not valid")


def check_global_hooks() -> None:
    if nn_module._global_forward_hooks or nn_module._global_forward_pre_hooks:
        raise Obstacle("global module hooks are registered")
    if nn_module._global_backward_hooks or nn_module._global_backward_pre_hooks:
        raise Obstacle("global module hooks are registered")


def check_members(members: Members) -> None:
    """Raises Obstacle unless every child is of the kind that is fused, and plain."""
    check_global_hooks()
    for conv, bn in members.branches():
        check_conv(conv)
        check_bn(bn)
    for relu in members.relus:
        check_type(relu, nn.ReLU)
    if members.pool is not None:
        check_type(members.pool, nn.MaxPool2d)
        pool = members.pool
        settings = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.return_indices, pool.ceil_mode)
        if settings != (3, 2, 1, 1, False, False):
            raise Obstacle("its pooling is not a 3x3 max pool of stride 2")
    for child in members.all():
        check_plain(child)


def _is_tensor(value) -> bool:
    """A tensor our operators understand: plain, a parameter, or fake; not another subclass, not an fx proxy."""
    kind = type(value)
    return kind is nn.Parameter or kind is Tensor or kind.__name__ == "FakeTensor"


def check_activation(x) -> None:
    """Raises Obstacle unless x is something the kernels could take at all."""
    if not _is_tensor(x) or x.layout != torch.strided:
        raise Obstacle(f"the input is a {type(x).__name__}, not a plain strided tensor")
    if x.dim() != 4 or not x.is_floating_point():
        raise Obstacle("the input is not a 4-D floating-point tensor")
    if not torch.compiler.is_compiling() and x.is_inference() and torch.is_grad_enabled():  # dynamo cannot trace it
        raise Obstacle("the input was made in inference mode: it cannot be kept for a backward pass")


class Branch(NamedTuple):
    """A conv-BN pair with what the layers below are told of it. Asked for once a call: a module's attributes are slow."""

    bn: nn.Module
    unit: Unit
    weight: Tensor
    norm: BatchNorm  # with the running statistics, used or not

    def used_norm(self) -> BatchNorm:
        return BatchNorm(*self.norm[:2], None, None) if self.unit.batch_stats else self.norm


def branches_of(members: Members, final_relu: bool) -> list[Branch]:
    """All pairs, the projection's last."""
    last = len(members.main) - 1
    return [
        _branch(pair, relu=i < last or (i == last and final_relu)) for i, pair in enumerate(members.branches())
    ]


def _branch(pair: ConvBN, relu: bool) -> Branch:
    conv, bn = pair
    norm, frozen = norm_of(bn)
    geometry = Conv(conv.stride, conv.padding, conv.dilation, conv.groups)
    return Branch(bn, Unit(geometry, not frozen, bn.eps, relu, group_of(bn)), conv.weight, norm)


def group_of(bn: nn.Module) -> dist.ProcessGroup | None:
    """Whose batches together have the statistics, by nn.SyncBatchNorm.forward's rule; None: this process's alone."""
    if type(bn) is not nn.SyncBatchNorm or not bn.training or not (dist.is_available() and dist.is_initialized()):
        return None
    group = bn.process_group or dist.group.WORLD
    return group if dist.get_world_size(group) > 1 else None


def is_shared(branches: list[Branch]) -> bool:
    """Whether any statistics are those of several processes."""
    return any(branch.unit.group is not None for branch in branches)


def may_be_empty(branches: list[Branch]) -> bool:
    """A shard without images has its part in the others' statistics, if it needs none of its own."""
    return is_shared(branches) and all(b.unit.group is not None or not b.unit.batch_stats for b in branches)


def is_synchronized(branches: list[Branch]) -> bool:
    """Whether any would be for eager, which counts a group of one process as several and raises on CPUs."""
    synchronized = any(type(branch.bn) is nn.SyncBatchNorm and branch.bn.training for branch in branches)
    return synchronized and dist.is_available() and dist.is_initialized()


def norm_of(bn: nn.Module) -> tuple[BatchNorm, bool]:
    """Its tensors, and whether it normalises by running statistics: nn.BatchNorm2d.forward's own rule."""
    norm = BatchNorm(bn.weight, bn.bias, bn.running_mean, bn.running_var)
    return norm, type(bn) is FrozenBatchNorm2d or not (
        bn.training or (norm.running_mean is None and norm.running_var is None)
    )


def check_input(branches: list[Branch], main: int, x: Tensor, weights, identity: bool) -> list[tuple[int, ...]]:
    """The sizes of the branches' outputs, of which the first `main` follow each other.

    Raises Obstacle for an input that eager rejects or that the kernels do not take; eager then has its say.
    """
    empty = may_be_empty(branches)
    sizes, size = [], tuple(x.shape)
    for i, (branch, weight) in enumerate(zip(branches, weights)):
        if i == main:  # the projection reads the unit's own input
            size = tuple(x.shape)
        size = _check_branch(size, x.dtype, x.device, weight, branch)
        if size[0] < 1 and not empty:
            raise Obstacle("the input is empty")
        sizes.append(size)
    shortcut = tuple(x.shape) if identity else sizes[-1]
    if shortcut != sizes[main - 1] and (identity or len(branches) > main):
        raise Obstacle("the shortcut's shape is not the main branch's")
    return sizes


def check_shortcut(shortcut, x: Tensor, size: tuple[int, ...]) -> None:
    """Raises Obstacle unless a shortcut that the unit made of x can be added to its output."""
    if not _is_tensor(shortcut) or shortcut.dtype != x.dtype or shortcut.device != x.device:
        raise Obstacle("its shortcut is of another type, dtype or device than the input")
    if tuple(shortcut.shape) != size:
        raise Obstacle("the shortcut's shape is not the main branch's")


def _check_branch(size, dtype, device, weight: Tensor, branch: Branch) -> tuple[int, ...]:
    """One conv-BN pair against an input of that size, as eager requires it → the output's size."""
    out = check_weight(size, dtype, device, weight, branch.unit.conv)
    check_norm(out, dtype, device, branch.bn, branch.norm, branch.unit.batch_stats and branch.unit.group is None)
    return out


def check_weight(size, dtype, device, weight: Tensor, conv: Conv) -> tuple[int, ...]:
    """A convolution against an input of that size → the output's size."""
    if not _is_tensor(weight) or weight.dtype != dtype or weight.device != device:
        raise Obstacle("a weight is of another type, dtype or device than the input")
    if size[1] != weight.shape[1] * conv.groups:
        raise Obstacle("the input's channels are not the convolution's")
    P, Q = output_size(size, weight, conv)
    if P < 1 or Q < 1:
        raise Obstacle("the input is empty")
    return size[0], weight.shape[0], P, Q


def check_norm(size, dtype, device, bn: nn.Module, norm: BatchNorm, batch_stats: bool) -> None:
    """A batch norm against what it normalises, of that size; batch_stats: by the statistics of that alone."""
    halves = dtype is torch.bfloat16 or dtype is torch.float16
    other = torch.float32 if halves and type(bn) is not FrozenBatchNorm2d else dtype  # its products are float32
    kind = None
    for vector in norm:
        if vector is None:
            continue
        if kind not in (None, vector.dtype):
            raise Obstacle("a batch norm's parameters are of several dtypes")
        kind = vector.dtype
        if not _is_tensor(vector) or vector.device != device or (vector.dtype != dtype and vector.dtype != other):
            raise Obstacle("a batch norm's parameters are of another type, dtype or device than the input")
        if vector.shape != (size[1],):
            raise Obstacle("a batch norm's channels are not the convolution's")
    N, _, P, Q = size
    if N * P * Q == 1 and batch_stats:
        raise Obstacle("batch statistics of a single value")
