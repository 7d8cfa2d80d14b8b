"""Which child modules make up a fused unit, and what keeps a unit from being fused."""

from __future__ import annotations

from typing import NamedTuple

import torch
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


def _check_type(child: nn.Module, *expected: type) -> None:
    if type(child) not in expected:
        names = " or ".join(t.__name__ for t in expected)
        raise Obstacle(f"it holds a {type(child).__name__} where a {names} is fused")


def _check_plain(child: nn.Module) -> None:
    """Nothing is attached to the child that calling it would run and fusing it would not."""
    if (
        child._forward_hooks
        or child._forward_pre_hooks
        or child._backward_hooks
        or child._backward_pre_hooks
        or "forward" in child.__dict__
    ):
        raise Obstacle(f"its inner {type(child).__name__} carries hooks or a replaced forward")


def is_frozen(bn: nn.Module) -> bool:
    """Normalises by running statistics (nn.BatchNorm2d.forward's own rule)."""
    return type(bn) is FrozenBatchNorm2d or not (bn.training or (bn.running_mean is None and bn.running_var is None))


def _check_conv(conv: nn.Conv2d) -> None:
    _check_type(conv, nn.Conv2d)
    if conv.bias is not None:
        raise Obstacle("a convolution has a bias")
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise Obstacle(f"a convolution pads by {conv.padding if conv.padding_mode == 'zeros' else conv.padding_mode!r}")


def _check_bn(bn: nn.Module) -> None:
    _check_type(bn, nn.BatchNorm2d, FrozenBatchNorm2d)
    if (bn.running_mean is None) != (bn.running_var is None) or bn.eps <= 0:
        raise Obstacle("a batch norm's settings are not valid")


def check_members(members: Members) -> None:
    """Raises Obstacle unless every child is of the kind that is fused, and plain."""
    if nn_module._global_forward_hooks or nn_module._global_forward_pre_hooks:
        raise Obstacle("global module hooks are registered")
    if nn_module._global_backward_hooks or nn_module._global_backward_pre_hooks:
        raise Obstacle("global module hooks are registered")
    for conv, bn in members.branches():
        _check_conv(conv)
        _check_bn(bn)
    for relu in members.relus:
        _check_type(relu, nn.ReLU)
    if members.pool is not None:
        _check_type(members.pool, nn.MaxPool2d)
        pool = members.pool
        settings = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.return_indices, pool.ceil_mode)
        if settings != (3, 2, 1, 1, False, False):
            raise Obstacle("its pooling is not a 3x3 max pool of stride 2")
    for child in members.all():
        _check_plain(child)


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


class _Shape(NamedTuple):
    batch: int
    channels: int
    extent: tuple[int, int]


def _check_pair(shape: _Shape, x: Tensor, weight: Tensor, pair: ConvBN) -> _Shape:
    """One conv-BN pair against its input, as eager requires it → the output's shape."""
    conv, bn = pair
    dtype, device, channels = x.dtype, x.device, weight.shape[0]
    if not _is_tensor(weight) or weight.dtype != dtype or weight.device != device:
        raise Obstacle("a weight is of another type, dtype or device than the input")
    if shape.channels != weight.shape[1] * conv.groups:
        raise Obstacle("the input's channels are not the convolution's")
    mixed = dtype in (torch.bfloat16, torch.float16) and type(bn) is not FrozenBatchNorm2d  # its products are float32
    dtypes = (dtype, torch.float32) if mixed else (dtype,)
    for vector in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
        if vector is None:
            continue
        if not _is_tensor(vector) or vector.device != device or vector.dtype not in dtypes:
            raise Obstacle("a batch norm's parameters are of another type, dtype or device than the input")
        if vector.dim() != 1 or vector.shape[0] != channels:
            raise Obstacle("a batch norm's channels are not the convolution's")
    extent = output_size((shape.batch, shape.channels, *shape.extent), weight, geometry(conv))
    if min(extent) < 1 or shape.batch < 1:
        raise Obstacle("the input is empty")
    if extent == (1, 1) and shape.batch == 1 and not is_frozen(bn):
        raise Obstacle("batch statistics of a single value")
    return _Shape(shape.batch, channels, extent)


def check_input(members: Members, x: Tensor, weights, identity: bool) -> None:
    """Raises Obstacle for an input that eager rejects or that the kernels do not take; eager then has its say."""
    main = shortcut = _Shape(x.shape[0], x.shape[1], tuple(x.shape[2:]))
    for pair, weight in zip(members.main, weights):
        main = _check_pair(main, x, weight, pair)
    for pair in members.projection:
        shortcut = _check_pair(shortcut, x, weights[-1], pair)
    if (identity or members.projection) and shortcut != main:
        raise Obstacle("the shortcut's shape is not the main branch's")


def geometry(conv: nn.Conv2d) -> Conv:
    return Conv(conv.stride, conv.padding, conv.dilation, conv.groups)


def unit_of(pair: ConvBN, relu: bool) -> Unit:
    conv, bn = pair
    return Unit(geometry(conv), not is_frozen(bn), bn.eps, relu)


def batch_norm_of(bn: nn.Module) -> BatchNorm:
    frozen = is_frozen(bn)
    return BatchNorm(bn.weight, bn.bias, bn.running_mean if frozen else None, bn.running_var if frozen else None)
