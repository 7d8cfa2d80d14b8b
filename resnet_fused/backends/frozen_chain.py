"""A residual chain with frozen batch norms in any backend's operators: each convolution with its batch norm as epilogue."""

from __future__ import annotations

import torch

NORM = 4  # weight, bias, running mean, running variance
GEOMETRY = 8  # stride, padding and dilation, two each; groups; whether ReLU follows


def run_frozen_chain(conv_fprop, bn_finalize, x, weights, norms, eps, geometry, projection, identity):
    """relu(z_n(conv_n(… relu(z_1(conv_1(x))))) + shortcut) with running statistics; the projection's are the last."""
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32

    def run(i, operand, residual):
        weight, bias, mean, var = norms[NORM * i : NORM * (i + 1)]
        affine = bn_finalize(torch.stack((mean, var)).to(acc), 1, weight, bias, eps[i])
        g = geometry[GEOMETRY * i : GEOMETRY * (i + 1)]
        conv = (g[:2], g[2:4], g[4:6], g[6])
        return conv_fprop(operand, weights[i], *conv, None, False, False, affine, residual, None, bool(g[7]))[0]

    main = len(weights) - projection
    residual = run(main, x, None) if projection else x if identity else None
    y = x
    for i in range(main):
        y = run(i, y, residual if i + 1 == main else None)
    return y
