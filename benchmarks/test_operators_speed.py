"""Single operators against the eager operations they replace: ``pytest benchmarks/``."""

import pytest
import torch
import torch.nn.functional as F

import resnet_fused  # noqa: F401  registers torch.ops.resnet_fused

from workloads import ACTIVATIONS, BATCH, CONVOLUTIONS, STEM

EPS = 1e-5
ops = torch.ops.resnet_fused
SIDES = pytest.mark.parametrize("side", ["eager", "fused"])


def draw(channels, side, seed=0):
    """A channels_last activation [BATCH, channels, side, side]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH, channels, side, side, generator=generator)
    return x.contiguous(memory_format=torch.channels_last)


def size(*tensors):
    """Bytes of all of them."""
    return sum(tensor.nbytes for tensor in tensors)


def affine_of(x):
    """BN's affine [4, C] from the batch's own statistics, weight 1 and bias 0."""
    return ops.bn_finalize(ops.bn_statistics(x), x.numel() // x.shape[1], None, None, EPS)


@SIDES
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_bn_statistics(timed, activation, side):
    x = draw(*activation)
    run = {"eager": lambda: torch.var_mean(x, (0, 2, 3)),
           "fused": lambda: ops.bn_statistics(x)}[side]
    timed(run, f"bn_statistics {activation}", size(x))


@SIDES
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_bn_apply_add_relu(timed, activation, side):
    x, residual = draw(*activation), draw(*activation, seed=1)
    affine = affine_of(x)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    run = {"eager": lambda: F.relu(F.batch_norm(x, mean, var, eps=EPS) + residual),
           "fused": lambda: ops.bn_apply(x, affine, True, residual)}[side]
    timed(run, f"bn_apply + residual + ReLU {activation}", size(x, residual, x))


@SIDES
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_bn_relu_backward(timed, activation, side):
    x, grad = draw(*activation), draw(*activation, seed=1)
    affine, count = affine_of(x), x.numel() // x.shape[1]
    weight = torch.ones(x.shape[1], requires_grad=True)
    bias = torch.zeros(x.shape[1], requires_grad=True)
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = F.relu(F.batch_norm(leaf, None, None, weight, bias, training=True, eps=EPS))

    def fused():
        sums = ops.bn_backward_reduce(grad, None, x, affine, True)
        return ops.bn_backward_apply(grad, None, x, affine, True, sums / count)

    run = {"eager": lambda: torch.autograd.grad(out, (leaf, weight, bias), grad, retain_graph=True),
           "fused": fused}[side]
    timed(run, f"ReLU + BN backward {activation}", size(x, grad, x, grad, x))


@SIDES
def test_stem_pool(timed, side):
    x = draw(*STEM)
    affine = affine_of(x)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)

    def eager():
        return F.max_pool2d(F.relu(F.batch_norm(x, mean, var, eps=EPS)), 3, 2, 1, return_indices=True)

    y, index = ops.stem_pool(x, affine)
    timed({"eager": eager, "fused": lambda: ops.stem_pool(x, affine)}[side], f"stem_pool {STEM}", size(x, y, index))


@SIDES
@pytest.mark.parametrize("problem", CONVOLUTIONS, ids=str)
def test_conv_fprop_with_prologue_and_statistics(timed, problem, side):
    x = draw(problem.channels, problem.side)
    affine = affine_of(x)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    weight = torch.randn(problem.filters, problem.channels, problem.kernel, problem.kernel)
    weight = weight.contiguous(memory_format=torch.channels_last)
    stride, padding = [problem.stride] * 2, [problem.kernel // 2] * 2

    def eager():
        y = F.conv2d(F.relu(F.batch_norm(x, mean, var, eps=EPS)), weight, None, stride, padding)
        return y, torch.var_mean(y, (0, 2, 3))

    def fused():
        return ops.conv_fprop(x, weight, stride, padding, [1, 1], 1, affine, True, True, None, None, None, False)

    y, _ = fused()
    timed({"eager": eager, "fused": fused}[side], f"conv_fprop {problem}", size(x, weight, y))
