"""Residual chains with frozen batch norms in any backend's operators: each convolution with its batch norm as epilogue."""

from __future__ import annotations

import torch

NORM = 4  # weight, bias, running mean, running variance
GEOMETRY = 8  # stride, padding and dilation, two each; groups; whether ReLU follows
CHAIN = 3  # convolutions one after another; whether there is a projection; an identity


def run_frozen_chains(conv_fprop, bn_finalize, x, weights, norms, eps, geometry, chains):
    """One after another relu(z_n(conv_n(… relu(z_1(conv_1(x))))) + shortcut) with running statistics.

    A chain's projection is the last of its convolutions.
    """
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32

    def run(i, operand, residual):
        weight, bias, mean, var = norms[NORM * i : NORM * (i + 1)]
        affine = bn_finalize(torch.stack((mean, var)).to(acc), 1, weight, bias, eps[i])
        g = geometry[GEOMETRY * i : GEOMETRY * (i + 1)]
        conv = (g[:2], g[2:4], g[4:6], g[6])
        return conv_fprop(operand, weights[i], *conv, None, False, False, affine, residual, None, bool(g[7]))[0]

    first = 0
    for length, projection, identity in zip(chains[::CHAIN], chains[1::CHAIN], chains[2::CHAIN]):
        last = first + length - 1
        residual = run(last + 1, x, None) if projection else x if identity else None
        for i in range(first, last + 1):
            x = run(i, x, residual if i == last else None)
        first = last + 1 + projection
    return x
