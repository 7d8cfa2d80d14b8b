"""The units as differentiable PyTorch operations: what double backward and forward-mode AD differentiate."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def row(vector):
    return vector.view(1, -1, 1, 1)


def batch_norm(norm, x, gamma, beta, affine):
    """By `norm.batch_stats` and `norm.eps`; with running statistics the mean and invstd in `affine` are constants."""
    if norm.group is not None:
        raise RuntimeError("a synchronized batch norm has no second derivative: it would need other processes' batches")
    wide = x if x.dtype == torch.float64 else x.float()
    if norm.batch_stats:
        # Spelled out: vmap over the second derivative of F.batch_norm fails (it adds in place).
        centred = wide - wide.mean((0, 2, 3), keepdim=True)
        y = centred * (centred.square().mean((0, 2, 3), keepdim=True) + norm.eps).rsqrt()
    else:
        y = (wide - row(affine[0])) * row(affine[3])
    y = y if gamma is None else y * row(gamma)
    y = y if beta is None else y + row(beta)
    return y.to(x.dtype)


def conv_bn(unit, x, weight, gamma, beta, affine):
    return batch_norm(unit, F.conv2d(x, weight, None, *unit.conv), gamma, beta, affine)


def chain(spec, affines, passes, x, shortcut, *parameters):
    """relu(bn_n(conv_n(… relu(bn_1(conv_1(x))) …)) + shortcut), arguments as in residual_chain.

    A shortcut that is given may have any values, or be None: passes(y) says where the last ReLU passes a result of y's
    size.
    """
    units = (*spec.units, *spec.projection)
    branches = [(unit, *parameters[3 * i : 3 * i + 3], affines[i]) for i, unit in enumerate(units)]
    y = x
    for i, (unit, *arguments) in enumerate(branches[: len(spec.units)]):
        y = conv_bn(unit, y, *arguments)
        if i + 1 < len(spec.units):
            y = torch.relu(y) if unit.relu else y
    if spec.projection:
        unit, *arguments = branches[-1]
        y = y + conv_bn(unit, x, *arguments)
    elif spec.identity:
        y = y + x
    elif spec.given:
        y = y if shortcut is None else y + shortcut
        return torch.where(passes(y), y, 0.0) if spec.units[-1].relu else y
    return torch.relu(y) if spec.units[-1].relu else y


def norm_act(norm, affine, x, gamma, beta):
    return torch.relu(batch_norm(norm, x, gamma, beta, affine))


def preactivation(spec, affines, x, shortcut, *parameters):
    """scale·conv_n(… relu(bn_1(x)) …) + shortcut, arguments as in preactivation_chain."""
    count = len(spec.units)
    y = first = x
    for i, unit in enumerate(spec.units):
        weight, *bn = parameters[3 * i : 3 * i + 3]
        operand = y if unit.norm is None else norm_act(unit.norm, affines[i], y, *bn)
        first = operand if i == 0 else first
        y = F.conv2d(operand, weight, None, *unit.conv)
    y = y if spec.scale == 1 else y * spec.scale
    if spec.projection:
        y = y + F.conv2d(first, parameters[3 * count], None, *spec.projection[0])
    elif spec.identity:
        y = y + x
    elif shortcut is not None:
        y = y + shortcut
    return y


def stem(unit, affine, x, weight, gamma, beta):
    return F.max_pool2d(torch.relu(conv_bn(unit, x, weight, gamma, beta, affine)), 3, 2, 1)


def vjp(function, primals, wanted, cotangent):
    """Gradients of function(*primals) for the primals named by the mask `wanted`, differentiable themselves."""
    chosen = [i for i, want in enumerate(wanted) if want]

    def of_chosen(*values):
        full = list(primals)
        for i, value in zip(chosen, values):
            full[i] = value
        return function(*full)

    _, pullback = torch.func.vjp(of_chosen, *(primals[i] for i in chosen))
    return pullback(cotangent)


def jvp(function, primals, tangents):
    """Directional derivative as a vjp of a vjp: torch.func.jvp cannot run inside a Function's jvp (nested levels)."""
    chosen = [i for i, tangent in enumerate(tangents) if tangent is not None]

    def of_chosen(*values):
        full = list(primals)
        for i, value in zip(chosen, values):
            full[i] = value
        return function(*full)

    out, pullback = torch.func.vjp(of_chosen, *(primals[i] for i in chosen))
    zeros = torch.func.vjp(pullback, _map(torch.zeros_like, out))
    return zeros[1](tuple(tangents[i] for i in chosen))[0]


def _map(function, value):
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def alive(tensors):
    """What a Function saved, without the wrappers of torch.func levels that ended before its pullback ran."""
    unwrap = torch._C._functorch.unwrap_if_dead
    return tuple(unwrap(t) if isinstance(t, torch.Tensor) else t for t in tensors)
