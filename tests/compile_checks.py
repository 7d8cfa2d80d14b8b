"""What torch.compile must leave as it is, on any backend."""

import copy

import torch
from tolerance import assert_bit_equal
from torch import nn

import resnet_fused

BLOCKS = {
    "basic": lambda: resnet_fused.BasicBlock(4, 4),
    "bottleneck_stride": lambda: resnet_fused.textbook.Bottleneck(4, 4, 2),
}


def make_block(kind, training, dtype=torch.float32):
    torch.manual_seed(0)
    block = BLOCKS[kind]().to(dtype=dtype, memory_format=torch.channels_last)
    for name, buffer in block.named_buffers():
        if buffer.is_floating_point():
            nn.init.uniform_(buffer, *((0.5, 1.5) if name.endswith("var") else (-0.5, 0.5)))
    return block.train(training)


def make_input(dtype=torch.float32):
    x = torch.randn(2, 4, 4, 5, generator=torch.Generator().manual_seed(1))
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def step(module, function, x):
    """Result, gradients and buffers after a step, by name."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    out = function(x)
    out.square().sum().backward()
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in module.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    return {"out": out.detach(), "gradient of x": x.grad, **gradients}, buffers


def check_one_graph(kind, training, backend, dtype=torch.float32):
    """Compiled, a block is one graph; results and gradients are the same bits and lie alike. → buffers, compiled's and
    the other's."""
    torch.compiler.reset()
    block, x = make_block(kind, training, dtype), make_input(dtype)
    twin = copy.deepcopy(block)
    with resnet_fused.backend(backend):
        expected, expected_buffers = step(twin, twin, x)
        compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
        results, buffers = step(block, compiled, x)
        with torch.no_grad():
            assert_bit_equal(compiled(x), twin(x))
    for name, result in results.items():
        assert torch.isfinite(result).all() and result.any(), name
        assert_bit_equal(result, expected[name])
        assert result.stride() == expected[name].stride(), name
    return buffers, expected_buffers
