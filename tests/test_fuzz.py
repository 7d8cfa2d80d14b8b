"""Random shapes, layouts, dtypes and views of a ConvBNAct and a BasicBlock against eager in float64."""

import copy
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tolerance import assert_oracle, stored_rounding
from torch import nn

import resnet_fused

FORMATS = (torch.channels_last, torch.contiguous_format)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# No ReLU argument comes nearer to 0 than that where gradients are compared: ten times what float32 sums of some
# hundred terms err, amplified by a standard deviation of at least 0.1.
MARGINS = {torch.float64: 1e-9, torch.float32: 1e-4}


class Setting(NamedTuple):
    seed: int
    dtype: torch.dtype
    format: torch.memory_format
    weight_format: torch.memory_format
    view: str
    training: bool


SETTINGS = st.builds(
    Setting,
    st.integers(0, 2**20),
    st.sampled_from(DTYPES),
    st.sampled_from(FORMATS),
    st.sampled_from(FORMATS),
    st.sampled_from(("dense", "rows", "columns", "channels", "offset", "expanded", "transposed")),
    st.booleans(),
)


def _input(setting, N, C, H, W):
    """[N, C, H, W], dense or a view of something larger, in float64."""
    larger = {
        "rows": (N, C, 2 * H, W), "columns": (N, C, H, W + 3), "channels": (N, 2 * C + 1, H, W),
        "offset": (N + 1, C, H, W), "expanded": (1, C, H, W), "transposed": (N, C, W, H),
    }  # fmt: skip
    x = torch.randn(larger.get(setting.view, (N, C, H, W)), dtype=torch.float64)
    x = x.contiguous(memory_format=setting.format)
    return {
        "rows": lambda: x[:, :, ::2], "columns": lambda: x[..., 2:-1], "channels": lambda: x[:, 1::2],
        "offset": lambda: x[1:], "expanded": lambda: x.expand(N, -1, -1, -1), "transposed": lambda: x.mT,
    }.get(setting.view, lambda: x)()  # fmt: skip


def _view_in(x, dtype):
    """x converted, still the same view: strides and offset survive."""
    base = torch.empty(x.untyped_storage().nbytes() // x.element_size(), dtype=x.dtype).set_(x.untyped_storage())
    return base.to(dtype).as_strided(x.shape, x.stride(), x.storage_offset())


def _randomise(module):
    with torch.no_grad():
        for bn in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            bn.weight.normal_(1, 0.3)
            bn.bias.normal_(0, 0.5)
            bn.running_mean.normal_(0, 0.3)
            bn.running_var.uniform_(0.5, 1.5)


def _round(module, x, dtype):
    """Parameters and inputs become numbers of `dtype`, so that float64 starts from the same ones."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
            tensor.copy_(tensor.to(dtype))
    return _view_in(_view_in(x, dtype), torch.float64)


class _Watch:
    """What the eager forward tells about conditioning: distance from the ReLU's kink, smallest batch variance."""

    def __init__(self, module):
        self.kink, self.variance = float("inf"), float("inf")
        for m in module.modules():
            if isinstance(m, nn.ReLU):
                m.register_forward_pre_hook(self._relu)
            if isinstance(m, nn.BatchNorm2d) and m.training:
                m.register_forward_pre_hook(self._bn)

    def _relu(self, _, inputs):
        self.kink = min(self.kink, inputs[0].abs().min().item())

    def _bn(self, _, inputs):
        self.variance = min(self.variance, inputs[0].var((0, 2, 3), correction=0).min().item())


def _run(module, x, backend, gradients):
    leaf = x.detach().requires_grad_(gradients)
    with resnet_fused.backend(backend), resnet_fused.modules.record() as records:
        out = module(leaf)
    assert [r.backend for r in records] == [None if backend == "eager" else backend]
    results = {"out": out.detach()}
    results |= {name: b for name, b in module.named_buffers() if b.is_floating_point()}
    if gradients:
        cotangent = torch.linspace(-9, 9, out.numel(), dtype=torch.float64).sin().view(out.shape)
        parameters = dict(module.named_parameters())
        grads = torch.autograd.grad(out, (leaf, *parameters.values()), cotangent.to(out.dtype))
        results |= {f"d {name}": grad for name, grad in zip(("x", *parameters), grads)}
    return out, results


def _compare(module, x, setting):
    _randomise(module)
    module = module.double().train(setting.training)
    x = _round(module, x, setting.dtype)
    watched = copy.deepcopy(module)
    watch = _Watch(watched)
    with torch.no_grad(), resnet_fused.backend("eager"):
        out = watched(x)
    # A nearly constant channel is amplified by 1/σ, error included; the operators' own tests are about it.
    assume(watch.variance > 0.01 and out.numel() > 0)
    gradients = watch.kink > MARGINS.get(setting.dtype, float("inf"))
    _, truth = _run(copy.deepcopy(module), x, "eager", gradients)
    lower = [copy.deepcopy(module).to(setting.dtype).to(memory_format=setting.weight_format) for _ in range(2)]
    xs = _view_in(x, setting.dtype)
    out, ours = _run(lower[0], xs, "cpu", gradients)
    # oneDNN writes past its memory in the weights' gradient of some 1x1 convolutions of stride 2; without it torch has
    # loops of its own.
    with torch.backends.mkldnn.flags(enabled=False):
        eager_out, theirs = _run(lower[1], xs, "eager", gradients)
    assert out.shape == eager_out.shape and out.dtype == eager_out.dtype
    pixels = x.numel() // x.shape[1]
    # 1/σ <= 10 amplifies the error of the sums: a hundred times the terms.
    length = 100 * (pixels + max(p[0].numel() for p in module.parameters() if p.dim() == 4))
    # The gradient of a weight in front of the batch's statistics is what eps leaves of two sums that cancel, each of the
    # size of the batch norm's own weight's gradient.
    weights = [key for key in truth if key.startswith("d ") and key.endswith("weight")]
    sums = [truth[key].abs().max().item() for key in weights if truth[key].dim() == 1]
    for key in truth:
        stored = stored_rounding(setting.dtype, truth[key], pixels)
        cancels = setting.training and key in weights and truth[key].dim() == 4
        # Cotangents, activations and weights are of size 1, and gradients through a batch norm cancel.
        terms = max([1.0, *sums]) if cancels else 1.0
        assert_oracle(ours[key], theirs[key], truth[key], length, key, terms=terms, stored=stored)


@st.composite
def convolutions(draw):
    groups = draw(st.sampled_from((1, 1, 1, 2, 3)))
    C, K = groups * draw(st.integers(1, 20 // groups)), groups * draw(st.integers(1, 20 // groups))
    kernel, stride, dilation = draw(st.sampled_from((1, 2, 3, 5))), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    H, W = draw(st.integers(3, 11)), draw(st.integers(3, 11))
    padding = draw(st.sampled_from((None, 0, 1)))
    pad = dilation * (kernel - 1) // 2 if padding is None else padding
    span = dilation * (kernel - 1) + 1
    assume(min(H, W) + 2 * pad >= span)
    P, Q = ((size + 2 * pad - span) // stride + 1 for size in (H, W))
    N = draw(st.integers(1, 4))
    assume(N * P * Q > 4)
    return (C, K, kernel, stride, padding, dilation, groups, draw(st.booleans())), (N, C, H, W)


def _conv_bn_act(arguments, size, setting):
    torch.manual_seed(setting.seed)
    _compare(resnet_fused.ConvBNAct(*arguments), _input(setting, *size), setting)


@st.composite
def basic_blocks(draw):
    C, stride = draw(st.integers(1, 18)), draw(st.sampled_from((1, 1, 2)))
    K = C if draw(st.booleans()) else draw(st.integers(1, 18))
    size = (draw(st.integers(1, 4)), C, draw(st.integers(3, 9)), draw(st.integers(3, 9)))
    return (C, K, stride), size


def _basic_block(arguments, size, setting):
    torch.manual_seed(setting.seed)
    C, K, stride = arguments
    downsample = None
    if stride != 1 or C != K:
        downsample = nn.Sequential(nn.Conv2d(C, K, 1, stride, bias=False), nn.BatchNorm2d(K))
    _compare(resnet_fused.BasicBlock(C, K, stride, downsample), _input(setting, *size), setting)


def _settings(examples):
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )  # fmt: skip


@_settings(100)
@given(convolutions(), SETTINGS)
def test_conv_bn_act(problem, setting):
    _conv_bn_act(*problem, setting)


@_settings(100)
@given(basic_blocks(), SETTINGS)
def test_basic_block(problem, setting):
    _basic_block(*problem, setting)


@pytest.mark.slow
@_settings(3000)
@given(convolutions(), SETTINGS)
def test_conv_bn_act_long(problem, setting):
    _conv_bn_act(*problem, setting)


@pytest.mark.slow
@_settings(3000)
@given(basic_blocks(), SETTINGS)
def test_basic_block_long(problem, setting):
    _basic_block(*problem, setting)
