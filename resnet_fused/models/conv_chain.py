"""Convolution, batch norm and ReLU in series, any number of times, as one unit; and what finds such series."""

from __future__ import annotations

import copy
from typing import Iterator

import torch
from torch import Tensor, nn

from resnet_fused.modules.fused import FusedModule
from resnet_fused.modules.members import ConvBN, Members, Obstacle


class ConvChain(FusedModule, nn.Sequential):
    """An nn.Sequential of convolution, batch norm, ReLU, convolution, batch norm, ReLU, … that runs as one unit.

        y = relu(bn_n(conv_n(… relu(bn_1(conv_1(x))) …)))

    x: [N, C, H, W] float32, float64, bfloat16 or float16 → [N, K, P, Q] of the last convolution. Kept for the backward
    pass: x and the convolutions' outputs, where a series of ConvBNAct would keep the activations between them too.
    Convolutions may have biases. Errors are eager's. Ioffe & Szegedy 2015 (Batch Normalization), section 3.2.
    """

    def members(self) -> Members:
        children = list(self)
        if not children or len(children) % 3:
            raise Obstacle("its children are not convolution, batch norm, ReLU, …")
        main = tuple(_without_bias(conv, bn) for conv, bn in self._pairs())
        return Members(main, tuple(children[2::3]))

    def eager_forward(self, x: Tensor) -> Tensor:
        return nn.Sequential.forward(self, x)

    def statistics_updated(self) -> None:
        for conv, bn in self._pairs():
            if _bias_moves(conv, bn) and _updates(bn):
                _add_to_running_mean(bn, conv.bias)

    def _pairs(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        children = list(self)
        return zip(children[::3], children[1::3])


class ConvFeatures(nn.Sequential):
    """An nn.Sequential of anything, in which each longest series of convolution, batch norm and ReLU runs as one unit.

    Children, their names, parameters and state_dict are nn.Sequential's, and so are slices, which are ConvFeatures too.
    Where a graph is captured (torch.compile, torch.fx) the children are called one by one.
    """

    def parts(self) -> list[nn.Module]:
        """What forward calls in turn: a ConvChain over the children of each series, and the other children.

        They are made of the children as they are now, since a child may have been replaced since the last call.
        """
        children, parts, series = list(self), [], []
        while children:
            if _is_triple(children[:3]):
                series += children[:3]
                del children[:3]
                continue
            parts += [ConvChain(*series)] if series else []
            parts.append(children.pop(0))
            series = []
        return [*parts, ConvChain(*series)] if series else parts

    def forward(self, x: Tensor) -> Tensor:
        captured = torch.compiler.is_compiling() or not isinstance(x, Tensor)
        for part in self if captured else self.parts():
            x = part(x)
        return x


def _is_triple(children: list[nn.Module]) -> bool:
    kinds = (nn.Conv2d, nn.modules.batchnorm._NormBase, nn.ReLU)
    return len(children) == 3 and all(map(isinstance, children, kinds))


def _without_bias(conv: nn.Module, bn: nn.Module) -> ConvBN:
    """The pair without the convolution's bias b, which moves into the batch norm's shift.

    By batch statistics it cancels: raw + b − mean(raw + b) = raw − mean(raw), and its gradient is zero. By running
    statistics: γ·invstd·(raw + b − mean) + β = γ·invstd·(raw − mean) + (β + γ·invstd·b). The pair's modules are copies
    of this call, with the tensors, buffers and hooks of the real ones. A pair that is not what it seems is returned as
    it is, to run eager.
    """
    if not _bias_moves(conv, bn):
        return ConvBN(conv, bn)
    if bn.training or bn.running_mean is None:
        shift = 0 * conv.bias  # for its gradient: zero, as eager's, and not None
        shift = shift if bn.bias is None else shift + bn.bias
        return ConvBN(_with(conv, bias=None), _with(bn, bias=shift))
    # All of the batch norm in the shift's precision: its vectors must be of one.
    acc = torch.promote_types(conv.bias.dtype, torch.float32)
    wide = {name: t if t is None else t.to(acc) for name, t in _vectors(bn).items()}
    shift = conv.bias.to(acc) * (wide["running_var"] + bn.eps).rsqrt()
    shift = shift if bn.weight is None else shift * wide["weight"]
    wide["bias"] = shift if bn.bias is None else shift + wide["bias"]
    return ConvBN(_with(conv, bias=None), _with(bn, **wide))


def _bias_moves(conv: nn.Module, bn: nn.Module) -> bool:
    if type(conv) is not nn.Conv2d or type(bn) not in (nn.BatchNorm2d, nn.SyncBatchNorm) or conv.bias is None:
        return False
    if torch.compiler.is_compiling():  # which copies no modules
        return False
    vectors = [conv.bias, *(t for t in _vectors(bn).values() if t is not None)]
    if any(v.shape != conv.weight.shape[:1] or v.device != conv.weight.device for v in vectors):
        return False
    statistics = (bn.running_mean is None) == (bn.running_var is None)
    return statistics and conv.bias.dtype == conv.weight.dtype and type(conv.bias) in (nn.Parameter, Tensor)


def _vectors(bn: nn.BatchNorm2d) -> dict[str, Tensor | None]:
    return {name: getattr(bn, name) for name in ("weight", "bias", "running_mean", "running_var")}


def _with(module: nn.Module, **tensors) -> nn.Module:
    """A copy with other parameters and buffers."""
    changed = copy.copy(module)
    for kind in ("_parameters", "_buffers"):
        old = getattr(module, kind)
        setattr(changed, kind, old | {name: tensor for name, tensor in tensors.items() if name in old})
    return changed


def _updates(bn: nn.Module) -> bool:
    return bn.training and bn.track_running_stats and bn.running_mean is not None


@torch.no_grad()
def _add_to_running_mean(bn: nn.BatchNorm2d, bias: Tensor) -> None:
    """What the bias adds to the batch's mean: momentum·b to (1 − momentum)·running + momentum·mean(raw)."""
    momentum = bn.momentum
    if momentum is None:  # cumulative average; the counter was advanced by the update
        momentum = 1.0 / float(bn.num_batches_tracked)
    bn.running_mean.add_(bias.to(bn.running_mean.dtype), alpha=momentum)
