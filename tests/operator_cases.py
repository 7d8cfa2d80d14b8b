"""Arguments for every operator and each of its modes, drawn for one problem of the table."""

import functools
from typing import NamedTuple

import pytest
import torch
from problems import ConvProblem

from resnet_fused.backends import relu_mask

FORMATS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
# float16 is bfloat16 but for its loads and stores, at which csrc/test_isas.py looks every day.
DTYPES_EVERYDAY = [pytest.param(name, marks=pytest.mark.slow if name == "float16" else ()) for name in DTYPES]
HALVES_EVERYDAY = [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)]


class Case(NamedTuple):
    operator: str
    arguments: tuple
    length: int  # terms of the longest sum in its results

    def run(self, namespace):
        results = getattr(namespace, self.operator)(*self.arguments)
        return results if isinstance(results, tuple) else (results,)

    def mapped(self, function) -> "Case":
        """With `function` applied to every tensor argument."""

        def map_one(a):
            if isinstance(a, list):
                return [map_one(item) for item in a]
            return function(a) if isinstance(a, torch.Tensor) else a

        return self._replace(arguments=tuple(map_one(a) for a in self.arguments))

    def double(self) -> "Case":
        return self.mapped(lambda t: t.double() if t.is_floating_point() else t)


class Inputs(NamedTuple):
    problem: ConvProblem
    x: torch.Tensor  # [N, C, H, W]
    weight: torch.Tensor  # [K, C/groups, R, S]
    grad: torch.Tensor  # [N, K, P, Q], as the four below
    out: torch.Tensor  # of a ReLU
    raw: torch.Tensor
    raw2: torch.Tensor
    residual: torch.Tensor
    add: torch.Tensor  # [N, C, H, W]
    add_out: torch.Tensor  # of a ReLU
    affine_x: torch.Tensor  # [4, C]
    affine: torch.Tensor  # [4, K]
    affine2: torch.Tensor
    mask: torch.Tensor  # of out
    means: torch.Tensor  # [2, K]
    means_x: torch.Tensor  # [2, C]
    gamma: torch.Tensor  # [C]
    beta: torch.Tensor
    pool_grad: torch.Tensor  # [N, C, pooled]
    pool_index: torch.Tensor
    pointwise: torch.Tensor  # [K, K, 1, 1]
    sum_raw: torch.Tensor  # [N, C, H, W], as the next
    sum_raw2: torch.Tensor
    sum_affine: torch.Tensor  # [4, C]
    sum_affine2: torch.Tensor

    @property
    def conv(self):
        p = self.problem
        return p.stride, p.padding, p.dilation, p.groups


def _affine(draw, channels, acc, integer):
    """[4, C]; where integer, products and sums with small integers are exact."""
    if integer:
        mean, shift = draw(channels), draw(channels)
        invstd = 2.0 ** torch.arange(channels).remainder(3)
        scale = invstd * (1 - 2.0 * torch.arange(channels).remainder(2))
        return torch.stack((mean, scale, shift, invstd)).to(acc)
    invstd = draw(channels).abs() + 0.5
    return torch.stack((draw(channels), invstd * draw(channels), draw(channels), invstd)).to(acc)


def away_from_kink(x, affine):
    """x moved until no ReLU argument is within rounding of 0, so that every backend masks alike."""
    mean, scale, shift, _ = (row.double().view(1, -1, 1, 1) for row in affine)
    for _ in range(100):
        near = ((x.double() - mean) * scale + shift).abs() < 1e-3
        if not near.any():
            break
        x = torch.where(near, x + 0.125, x)
    assert not near.any()
    return x


@functools.lru_cache(maxsize=4)
def draw_inputs(problem: ConvProblem, dtype, memory_format, integer=False) -> Inputs:
    p, (P, Q) = problem, problem.output
    generator = torch.Generator().manual_seed(len(p.id) + p.C)
    acc = torch.float64 if dtype == torch.float64 else torch.float32

    def draw(*size):
        if integer:
            return torch.randint(-3, 4, size, generator=generator).double()
        return torch.randn(size, generator=generator, dtype=torch.float64)

    # float16 ends at 65504, which a weight's gradient would exceed here: gradients are scaled, as a loss would be.
    gradient = 1 / 16 if dtype == torch.float16 and not integer else 1

    def tensor(*size):
        return draw(*size).to(dtype).contiguous(memory_format=memory_format)

    def settled(affine, *size):
        # Integers have exact ReLU arguments: there, zeros and ties belong to the test.
        x = tensor(*size)
        return x if integer else away_from_kink(x, affine).contiguous(memory_format=memory_format)

    def settled_sum(residual, raw, affine, affine2):
        # Moved until the sum's ReLU has no argument within rounding of 0, with and without the residual's affine.
        if integer:
            return residual
        (mean, scale, shift), (mean2, scale2, shift2) = (
            (row.double().view(1, -1, 1, 1) for row in rows[:3]) for rows in (affine, affine2)
        )
        z = (raw.double() - mean) * scale + shift
        for _ in range(100):
            r = residual.double()
            near = ((z + r).abs() < 1e-3) | ((z + (r - mean2) * scale2 + shift2).abs() < 1e-3)
            if not near.any():
                break
            residual = torch.where(near, residual + 0.125, residual)
        assert not near.any()
        return residual.contiguous(memory_format=memory_format)

    affine_x, affine, affine2 = (_affine(draw, channels, acc, integer) for channels in (p.C, p.K, p.K))
    pooled = ((p.H + 1) // 2, (p.W + 1) // 2)
    index = torch.randint(0, 9, (p.N, p.C, *pooled), generator=generator)
    # The positions of a border window that lie outside of the image never win.
    rows, columns = 2 * torch.arange(pooled[0]).view(-1, 1) - 1, 2 * torch.arange(pooled[1]) - 1
    i, j = rows + index // 3, columns + index % 3
    outside = (i < 0) | (i >= p.H) | (j < 0) | (j >= p.W)
    index = index.masked_fill(outside, 255).to(torch.uint8).contiguous(memory_format=memory_format)
    x, weight = settled(affine_x, p.N, p.C, p.H, p.W), tensor(p.K, p.C // p.groups, p.R, p.S)
    grad, out = tensor(p.N, p.K, P, Q) * gradient, tensor(p.N, p.K, P, Q).relu_()
    raw = settled(affine, p.N, p.K, P, Q)
    return Inputs(
        problem, x=x, weight=weight, grad=grad, out=out, raw=raw,
        raw2=tensor(p.N, p.K, P, Q),
        residual=settled_sum(tensor(p.N, p.K, P, Q), raw, affine, affine2),
        add=tensor(p.N, p.C, p.H, p.W),
        add_out=tensor(p.N, p.C, p.H, p.W).relu_(),
        affine_x=affine_x, affine=affine, affine2=affine2, mask=relu_mask.pack(out),
        means=gradient * draw(2, p.K).to(acc), means_x=gradient * draw(2, p.C).to(acc),
        gamma=draw(p.C).to(dtype), beta=draw(p.C).to(dtype),
        pool_grad=tensor(p.N, p.C, *pooled) * gradient, pool_index=index,
        pointwise=tensor(p.K, p.K, 1, 1) / p.K**0.5,  # keeps a chain's values in float16's range
        sum_raw=tensor(p.N, p.C, p.H, p.W), sum_raw2=tensor(p.N, p.C, p.H, p.W),
        sum_affine=_affine(draw, p.C, acc, integer), sum_affine2=_affine(draw, p.C, acc, integer),
    )  # fmt: skip


def _other_format(t):
    last = t.is_contiguous(memory_format=torch.channels_last)
    return t.contiguous(memory_format=torch.contiguous_format if last else torch.channels_last)


def _pixels(i: Inputs) -> int:
    return i.problem.N * i.problem.H * i.problem.W


def _outputs(i: Inputs) -> int:
    return i.grad.shape[0] * i.grad.shape[2] * i.grad.shape[3]


def _fprop(i, prologue=None, prologue_relu=False, statistics=False, epilogue=None, residual=None,
           residual_affine=None, relu=False):  # fmt: skip
    terms = i.weight[0].numel() + (_outputs(i) if statistics else 0)
    return Case(
        "conv_fprop",
        (i.x, i.weight, *i.conv, prologue, prologue_relu, statistics, epilogue, residual, residual_affine, relu),
        terms,
    )


def _backward(i, out=None, bn=False, relu=False, prologue=None, prologue_relu=False, reduce=False, add=None,
              add_out=None, output_mask=(True, True), half=None, sums=()):  # fmt: skip
    raw = (i.raw, i.affine, i.means) if bn else (None, None, None)
    head = (i.grad, out, *raw, relu, i.x, i.weight, *i.conv, prologue, prologue_relu)
    length = i.weight[:, 0].numel() + _outputs(i) + (_pixels(i) if reduce or sums else 0)
    if half == "wgrad":
        return Case("conv_wgrad", head, length)
    if half == "dgrad":
        return Case("conv_dgrad", (*head, reduce, add, add_out), length)
    return Case("conv_backward", (*head, reduce, add, add_out, list(output_mask), *sums), length)


def _chain(i, units, projection=False, identity=False, relu=True, another=False):
    """`units` convolutions, all but the first 1x1; and another chain of one more, with an identity."""
    weights = [i.weight, *[i.pointwise] * (units - 1), *[i.weight] * projection]
    norm = [i.affine[1], i.affine[2], i.affine[0], i.affine[3].square()]
    stride, padding, dilation, groups = i.conv
    first, pointwise = [*stride, *padding, *dilation, groups], [1, 1, 0, 0, 1, 1, 1]
    geometry = [*first, relu or units > 1]
    for unit in range(1, units):
        geometry += [*pointwise, relu or unit + 1 < units]
    geometry += [*first, False] if projection else []
    chains = [units, int(projection), int(identity)]
    if another:
        weights.append(i.pointwise)
        geometry += [*pointwise, True]
        chains += [1, 0, 1]
        units += 1
    eps, geometry = [1e-3] * len(weights), [int(n) for n in geometry]
    length = i.weight[0].numel() + (units - 1) * i.pointwise[0].numel()
    return Case("frozen_chains", (i.x, weights, norm * len(weights), eps, geometry, chains), length)


MODES = {
    "statistics": lambda i: Case("bn_statistics", (i.x,), _pixels(i)),
    "finalize": lambda i: Case("bn_finalize", (i.affine_x[2:].abs(), 7, i.gamma, i.beta, 1e-5), 1),
    "finalize_plain": lambda i: Case("bn_finalize", (i.affine_x[2:].abs(), 1, None, None, 1e-3), 1),
    "apply": lambda i: Case("bn_apply", (i.x, i.affine_x, False), 1),
    "apply_relu": lambda i: Case("bn_apply", (i.x, i.affine_x, True), 1),
    "apply_residual": lambda i: Case("bn_apply", (i.raw, i.affine, False, i.residual), 1),
    "apply_residual_affine": lambda i: Case("bn_apply", (i.raw, i.affine, True, i.residual, i.affine2), 1),
    "apply_mask": lambda i: Case("bn_apply_mask", (i.raw, i.affine, i.residual), 1),
    "apply_mask_affine": lambda i: Case("bn_apply_mask", (i.raw, i.affine, i.residual, i.affine2), 1),
    "reduce": lambda i: Case("bn_backward_reduce", (i.grad, None, i.raw, i.affine, False), _outputs(i)),
    "reduce_relu": lambda i: Case("bn_backward_reduce", (i.grad, None, i.raw, i.affine, True), _outputs(i)),
    "reduce_out": lambda i: Case("bn_backward_reduce", (i.grad, i.out, i.raw, i.affine, True), _outputs(i)),
    "reduce_two": lambda i: Case(
        "bn_backward_reduce", (i.grad, i.out, i.raw, i.affine, True, i.raw2, i.affine2), _outputs(i)
    ),
    "mask_reduce": lambda i: Case("bn_backward_mask_reduce", (i.grad, i.out, i.raw, i.affine), _outputs(i)),
    "mask_reduce_two": lambda i: Case(
        "bn_backward_mask_reduce", (i.grad, i.out, i.raw, i.affine, i.raw2, i.affine2), _outputs(i)
    ),
    "mask_reduce_bits": lambda i: Case(
        "bn_backward_mask_reduce", (i.grad, i.out, i.raw, i.affine, None, None, i.mask), _outputs(i)
    ),
    "mask_reduce_two_bits": lambda i: Case(
        "bn_backward_mask_reduce", (i.grad, i.out, i.raw, i.affine, i.raw2, i.affine2, i.mask), _outputs(i)
    ),
    "reduce_frozen": lambda i: Case("bn_backward_reduce", (i.grad, i.out, None, None, True), _outputs(i)),
    "reduce_frozen_linear": lambda i: Case("bn_backward_reduce", (i.grad, None, None, None, False), _outputs(i)),
    "backward_apply": lambda i: Case("bn_backward_apply", (i.grad, None, i.raw, i.affine, False, i.means), 4),
    "backward_apply_relu": lambda i: Case("bn_backward_apply", (i.grad, None, i.raw, i.affine, True, i.means), 4),
    "backward_apply_out": lambda i: Case("bn_backward_apply", (i.grad, i.out, i.raw, i.affine, True, i.means), 4),
    "sums_finalize": lambda i: Case("bn_backward_finalize", (i.means, 7, i.affine[1].to(i.x.dtype), i.affine[2]), 1),
    "sums_finalize_plain": lambda i: Case("bn_backward_finalize", (i.means_x, 3, None, None), 1),
    "fprop": lambda i: _fprop(i),
    "fprop_statistics": lambda i: _fprop(i, statistics=True),
    "fprop_prologue_linear": lambda i: _fprop(i, i.affine_x, False),
    "fprop_prologue": lambda i: _fprop(i, i.affine_x, True, statistics=True),
    "fprop_epilogue": lambda i: _fprop(i, epilogue=i.affine),
    "fprop_epilogue_relu": lambda i: _fprop(i, epilogue=i.affine, relu=True),
    "fprop_residual": lambda i: _fprop(i, i.affine_x, True, False, i.affine, i.residual, None, True),
    "fprop_residual_affine": lambda i: _fprop(i, None, False, False, i.affine, i.residual, i.affine2, True),
    "backward": lambda i: _backward(i),
    "backward_masked": lambda i: _backward(i, out=i.out, relu=True),
    "backward_bn": lambda i: _backward(i, bn=True, relu=True),
    "backward_bn_linear": lambda i: _backward(i, bn=True, relu=False, prologue=i.affine_x, prologue_relu=True),
    "backward_bn_out": lambda i: _backward(i, i.out, True, True, i.affine_x, True, True),
    "backward_reduce_linear": lambda i: _backward(i, prologue=i.affine_x, reduce=True),
    "backward_add": lambda i: _backward(i, bn=True, relu=True, add=i.add),
    "backward_add_masked": lambda i: _backward(i, bn=True, relu=True, add=i.add, add_out=i.add_out),
    "backward_everything": lambda i: _backward(i, i.out, True, True, i.affine_x, True, True, i.add, i.add_out),
    "backward_sum": lambda i: _backward(i, sums=(_other_format(i.sum_raw), i.sum_affine)),
    "backward_sum_add": lambda i: _backward(
        i, bn=True, relu=True, add=i.add, output_mask=(True, False), sums=(i.sum_raw, i.sum_affine)
    ),
    "backward_sum_two": lambda i: _backward(
        i, i.out, True, True, add=i.add, add_out=i.add_out,
        sums=(i.sum_raw, i.sum_affine, i.sum_raw2, i.sum_affine2),
    ),
    "backward_dx": lambda i: _backward(i, bn=True, relu=True, output_mask=(True, False)),
    "backward_dw": lambda i: _backward(i, i.out, True, True, i.affine_x, True, output_mask=(False, True)),
    "backward_nothing": lambda i: _backward(i, output_mask=(False, False)),
    "dgrad": lambda i: _backward(i, None, True, True, i.affine_x, True, True, i.add, i.add_out, half="dgrad"),
    "wgrad": lambda i: _backward(i, i.out, True, True, i.affine_x, True, half="wgrad"),
    "chain": lambda i: _chain(i, 1, relu=False),
    "chain_projection": lambda i: _chain(i, 2, projection=True),
    "chain_projection_chain": lambda i: _chain(i, 2, projection=True, another=True),
    "chain_identity": lambda i: _chain(i, 3, identity=i.x.shape == i.raw.shape),
    "pool": lambda i: Case("stem_pool", (i.x, i.affine_x), 1),
    "pool_reduce": lambda i: Case(
        "stem_pool_backward_reduce", (i.pool_grad, i.pool_index, i.x, i.affine_x), _pixels(i)
    ),
    "pool_reduce_frozen": lambda i: Case(
        "stem_pool_backward_reduce", (i.pool_grad, i.pool_index, None, None), _pixels(i)
    ),
    "pool_apply": lambda i: Case(
        "stem_pool_backward_apply", (i.pool_grad, i.pool_index, i.x.shape, i.x, i.affine_x, i.means_x), 4
    ),
    "pool_apply_frozen": lambda i: Case(
        "stem_pool_backward_apply", (i.pool_grad, i.pool_index, i.x.shape, None, None, None), 4
    ),
}  # fmt: skip
# The CPU's kernels have no masks.
CPU_MODES = [mode for mode in MODES if not mode.startswith("apply_mask") and not mode.endswith("bits")]


def make_case(mode, problem, dtype, memory_format, integer=False) -> Case:
    return MODES[mode](draw_inputs(problem, dtype, memory_format, integer))
