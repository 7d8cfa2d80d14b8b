"""torch.func and forward-mode AD through whole modules that track no running statistics."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.nn.modules.batchnorm import BatchNorm2d

import resnet_fused
from resnet_fused.backends import traceable
from resnet_fused.modules import NormAfterAdditionBlock, BlockOptions, PreactivationBlock

# 1e-9: float64 with sums of some hundred terms; eager's own derivatives are the other side.
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def test_python_s_operators_are_the_library_s():
    """Where torch.func runs them: kernels of Triton can take no batch of tensors."""
    seen = []
    vmap(lambda x: seen.append(traceable.tracing()) or x)(torch.ones(2))
    assert seen == [True] and not traceable.tracing()


def _untracked(channels):
    return BatchNorm2d(channels, track_running_stats=False)


def _projection(C, K, stride):
    return nn.Sequential(nn.Conv2d(C, K, 1, stride, bias=False), _untracked(K))


def _module(kind):
    torch.manual_seed(0)
    module = {
        "basic": lambda: resnet_fused.BasicBlock(3, 3, norm_layer=_untracked),
        "basic_projection": lambda: resnet_fused.BasicBlock(3, 4, 2, _projection(3, 4, 2), norm_layer=_untracked),
        "bottleneck": lambda: resnet_fused.Bottleneck(4, 1, norm_layer=_untracked),
        "frozen": lambda: resnet_fused.BasicBlock(3, 3).eval(),
        "preactivation": lambda: PreactivationBlock(3, 4, 2, options=BlockOptions(norm_layer=_untracked)),
        "gated": lambda: NormAfterAdditionBlock(3, 3, options=BlockOptions("exclusive_gating", norm_layer=_untracked)),
    }[kind]().double()
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 0.8, 0.3)
    return module


KINDS = {"basic": 3, "basic_projection": 3, "bottleneck": 4, "frozen": 3, "preactivation": 3, "gated": 3}


def _both(kind, run):
    """run(function of (parameters, x), parameters, x) with the fused module and with its eager forward."""
    module = _module(kind)
    parameters = {name: p.detach().clone() for name, p in module.named_parameters()}
    torch.manual_seed(1)
    x = torch.randn(2, KINDS[kind], 4, 4, dtype=torch.float64)
    results = []
    for backend in ("cpu", "eager"):
        with resnet_fused.backend(backend), resnet_fused.modules.record() as records:
            results.append(run(lambda p, x: functional_call(module, p, (x,)), parameters, x))
        assert {r.backend for r in records} == {None if backend == "eager" else backend}
    torch.testing.assert_close(*results, **CLOSE)


def _loss(function):
    return lambda p, x: function(p, x).square().sum()


@pytest.mark.parametrize("kind", KINDS)
def test_grad(kind):
    _both(kind, lambda f, p, x: grad(_loss(f), argnums=(0, 1))(p, x))


@pytest.mark.parametrize("kind", KINDS)
def test_per_sample_gradients(kind):
    def run(f, p, x):
        samples = torch.stack((x, 2 * x + 1, x.flip(0).cos()))
        return vmap(grad(_loss(f)), in_dims=(None, 0))(p, samples)

    _both(kind, run)


@pytest.mark.parametrize("kind", KINDS)
def test_ensembles(kind):
    def run(f, p, x):
        stacked = {name: torch.stack((value, 1.5 * value)) for name, value in p.items()}
        return vmap(f, in_dims=(0, None))(stacked, x)

    _both(kind, run)


@pytest.mark.parametrize("kind", KINDS)
def test_jvp(kind):
    _both(kind, lambda f, p, x: jvp(lambda x: f(p, x), (x,), (x.sin(),)))


def test_jvp_in_the_parameters():
    def run(f, p, x):
        return jvp(lambda p: f(p, x), (p,), ({name: value.cos() for name, value in p.items()},))

    _both("basic_projection", run)


def test_dual_tensors():
    import torch.autograd.forward_ad as fwd

    def run(f, p, x):
        with fwd.dual_level():
            return tuple(fwd.unpack_dual(f(p, fwd.make_dual(x, x.cos()))))

    _both("basic", run)


@pytest.mark.parametrize("kind", ["basic", "frozen"])
def test_jacobians(kind):
    def run(f, p, x):
        x = x[:, :, :3, :2]
        return jacrev(lambda x: f(p, x))(x), jacfwd(lambda x: f(p, x))(x)

    _both(kind, run)


@pytest.mark.parametrize("kind", ["basic", "frozen"])
def test_hessian(kind):
    def run(f, p, x):
        weight = p["bn1.weight"]
        return hessian(lambda w: _loss(f)({**p, "bn1.weight": w}, x))(weight)

    _both(kind, run)


def test_hessian_vector_product():
    def run(f, p, x):
        return jvp(lambda x: grad(lambda x: _loss(f)(p, x))(x), (x,), (x.sin(),))

    _both("basic_projection", run)


def test_vjp_of_a_vjp():
    def run(f, p, x):
        out, pullback = vjp(lambda x: f(p, x), x)
        _, second = vjp(lambda cotangent: pullback(cotangent)[0], out)
        return second(x.cos())

    _both("basic", run)


@pytest.mark.parametrize("block", [resnet_fused.BasicBlock, PreactivationBlock])
def test_tracked_statistics_are_eager_s_error_under_a_transform(block):
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    messages = []
    for backend in ("cpu", "eager"):
        module = block(3, 3).double()
        with resnet_fused.backend(backend), pytest.raises(RuntimeError, match="in-place operation") as error:
            grad(lambda x: module(x).sum())(x)
        messages.append(str(error.value))
        assert module.bn1.num_batches_tracked == 0
    assert messages[0] == messages[1]
