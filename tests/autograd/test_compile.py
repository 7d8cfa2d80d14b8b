"""torch.compile with fullgraph: a fused module is one graph, in training and in evaluation."""

import copy
import importlib.util
import itertools

import pytest
import torch
from compile_checks import BLOCKS, check_one_graph, make_block, make_input
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.fx.experimental.proxy_tensor import make_fx

import resnet_fused
from resnet_fused import backends
from resnet_fused.modules import NormAfterAdditionBlock, BlockOptions, OriginalBlock, PreactivationBlock

KINDS = {
    "conv_bn_act": lambda: resnet_fused.ConvBNAct(4, 6),
    "basic": lambda: resnet_fused.BasicBlock(4, 4),
    "bottleneck_stride": lambda: resnet_fused.textbook.Bottleneck(4, 2, 2),
    "preactivation": lambda: PreactivationBlock(4, 6, 2),
    "gated": lambda: NormAfterAdditionBlock(4, 4, options=BlockOptions("exclusive_gating")),
    "scaled": lambda: OriginalBlock(4, 4, options=BlockOptions("scaling")),
}
# Of other sizes, what there is to trace once each: shapes are traced by the same lines in all of them.
DYNAMIC = [("conv_bn_act", False), ("basic", True), ("bottleneck_stride", True), ("gated", True)]
GRAPHS = [(*c, False) for c in itertools.product(KINDS, (True, False))] + [(*c, True) for c in DYNAMIC]
EVERYDAY = {("preactivation", True, False), ("conv_bn_act", False, False)}  # training, dynamic


def _module(kind, training):
    torch.manual_seed(0)
    module = KINDS[kind]().double().to(memory_format=torch.channels_last)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, 0.5, 1.5)
    return module.train(training)


def _step(module, function, x):
    x = x.clone().requires_grad_()
    module.zero_grad()
    out = function(x)
    out.square().mean().backward()
    return out, x.grad, [p.grad for p in module.parameters()], [b.clone() for b in module.buffers()]


def _input(*size):
    return torch.randn(size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "kind, training, dynamic", [pytest.param(*c, marks=() if c in EVERYDAY else pytest.mark.slow) for c in GRAPHS]
)
def test_one_graph(kind, training, dynamic):
    torch.compiler.reset()
    module = _module(kind, training)
    twin = copy.deepcopy(module)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    sizes = [(3, 4, 6, 6), (2, 4, 9, 7)] if dynamic else [(3, 4, 6, 6)]
    for size in sizes:
        x = _input(*size)
        ours, theirs = _step(module, compiled, x), _step(twin, twin, x)
        # 1e-12: the same operators on the same float64 numbers; the graph may reorder an addition of gradients.
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        assert ours[0].stride() == theirs[0].stride() and ours[1].stride() == theirs[1].stride()


def test_the_graph_holds_the_fused_operators():
    torch.compiler.reset()
    seen = set()

    def collect(graph, example_inputs):
        seen.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    module = _module("basic", True)
    torch.compile(module, fullgraph=True, backend=aot_autograd(fw_compiler=collect, bw_compiler=collect))(
        _input(2, 4, 6, 6).requires_grad_()
    ).sum().backward()
    fused = {name for name in seen if name.startswith("resnet_fused.")}
    assert {"resnet_fused.conv_fprop.default", "resnet_fused.conv_backward.default"} <= fused
    assert not any("aten.convolution" in name or "batch_norm" in name for name in seen)


def test_without_grad():
    torch.compiler.reset()
    module = _module("basic", False)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = _input(2, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), module(x), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("backend", ["cpu", "library"])
def test_the_same_bits(backend, kind, training):
    buffers, expected = check_one_graph(kind, training, backend)
    # The compiled update of running statistics is PyTorch's, of three roundings of numbers up to 4.
    torch.testing.assert_close(buffers, expected, rtol=0, atol=3 * 4 * 2**-24)


@pytest.fixture
def triton(monkeypatch):
    """The name of a backend: Triton's operators for any device, whose kernels do nothing."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    from resnet_fused.backends.triton import launch

    registered = backends._registered
    monkeypatch.setattr(backends, "_registered", {**registered, "traced": registered["triton"]})
    with launch.replaced(lambda *_: None):
        yield "traced"


def test_triton_s_operators_are_nodes(triton):
    torch.compiler.reset()
    seen = []

    def collect(graph, example_inputs):
        seen.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=collect, bw_compiler=collect)
    with resnet_fused.backend(triton):
        compiled = torch.compile(make_block("basic", True), fullgraph=True, backend=backend)
        compiled(make_input().requires_grad_()).sum().backward()
    operators = [str(target) for target in seen if "resnet_fused" in str(target)]
    expected = ["conv_fprop", "bn_finalize", "bn_backward_finalize", "conv_backward"] * 2  # for each convolution
    expected += ["bn_apply_mask", "bn_backward_mask_reduce"]  # for the sum
    assert sorted(operators) == sorted(f"resnet_fused_triton.{name}.default" for name in expected)


@pytest.mark.parametrize("tracing_mode", ["real", "symbolic"])
def test_triton_s_operators_are_nodes_of_make_fx(triton, tracing_mode):
    block, x = make_block("basic", False), make_input()
    with resnet_fused.backend(triton), torch.no_grad():
        graph = make_fx(lambda x: block(x), tracing_mode=tracing_mode, _allow_non_fake_inputs=True)(x)
    operators = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert operators == [torch.ops.resnet_fused_triton.frozen_chains.default]
