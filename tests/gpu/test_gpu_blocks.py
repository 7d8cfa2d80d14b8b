"""Whole modules with our backend on the device against eager on the CPU; as a CUDA graph; in another stream."""

import copy

import pytest
import torch
from operator_cases import FORMATS
from problems import BLOCKS
from test_blocks_oracle import FLOAT32_MARGIN, HALF_MARGIN, _distance, _draw, _lengths, _run, _separate
from tolerance import WINOGRAD, assert_bit_equal, assert_oracle, max_error, stored_rounding

import resnet_fused

assert _distance  # the draws keep their distance from the kinks: masks agree on both devices
PROBLEMS = {p.id: p for p in BLOCKS}
NAMES = pytest.mark.parametrize("name", PROBLEMS)
LAYOUTS = pytest.mark.parametrize("layout", FORMATS)
TRAINING = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def run_there(module, x, gpu, autocast=None):
    """_run on the device, and its results on the CPU."""
    results = _run(module.to(gpu.device), x.to(gpu.device), gpu.backend, autocast)
    return {name: tensor.cpu() for name, tensor in results.items()}


@LAYOUTS
@TRAINING
@NAMES
def test_float32(name, training, layout, gpu):
    module, x = _draw(PROBLEMS[name], training, FLOAT32_MARGIN)
    module, x = module.to(memory_format=FORMATS[layout]), x.contiguous(memory_format=FORMATS[layout])
    single = [copy.deepcopy(module).float() for _ in range(2)]
    truth = _run(copy.deepcopy(module), x, "eager")
    ours, theirs = run_there(single[0], x.float(), gpu), _run(single[1], x.float(), "eager")
    for key in truth:
        assert_oracle(ours[key], theirs[key], truth[key], _lengths(module, x), key, factor=WINOGRAD)


@LAYOUTS
@TRAINING
@NAMES
def test_float64(name, training, layout, gpu):
    module, x = _draw(PROBLEMS[name], training, 1e-9)
    x = x.contiguous(memory_format=FORMATS[layout])
    ours, theirs = run_there(copy.deepcopy(module), x, gpu), _run(copy.deepcopy(module), x, "eager")
    for key in theirs:
        # 1e-10 of the largest: float64 sums of some hundred terms, amplified by 1/σ in three batch norms.
        assert max_error(ours[key], theirs[key]) <= 1e-10 * max(1.0, theirs[key].abs().max().item()), key


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("style", ["converted", "autocast"])
@TRAINING
@NAMES
def test_16_bits(name, training, style, half, gpu):
    module, x = _draw(PROBLEMS[name], training, HALF_MARGIN, 0.3, _separate, half)
    x = x.contiguous(memory_format=torch.channels_last)
    truth = _run(copy.deepcopy(module), x, "eager")
    dtype, autocast = (half, None) if style == "converted" else (torch.float32, half)
    lower = [copy.deepcopy(module).to(dtype) for _ in range(2)]
    ours = run_there(lower[0], x.to(dtype), gpu, autocast)
    theirs = _run(lower[1], x.to(dtype), "eager", autocast)
    for key in truth:
        stored = stored_rounding(half, truth[key], x.numel() // x.shape[1])
        assert_oracle(ours[key], theirs[key], truth[key], _lengths(module, x), key, stored=stored, factor=WINOGRAD)


@NAMES
def test_training_twice_gives_the_same_bits(name, gpu):
    """Where the library's convolutions do, which deterministic algorithms ask for."""
    module, x = _draw(PROBLEMS[name], True, FLOAT32_MARGIN)
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (run_there(copy.deepcopy(module).float(), x.float(), gpu) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    for key in first:
        assert_bit_equal(first[key], second[key])


def training_step(block, x, grad, backend):
    def step():
        block.zero_grad(set_to_none=True)
        x.grad = None
        with resnet_fused.backend(backend):
            step.out = block(x)
        step.out.backward(grad)

    return step


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_graph_of_a_training_step(dtype, cuda):
    """Captured once, replayed on other values: what calls compute of those, to the bit, running statistics among it."""
    torch.manual_seed(0)
    block = resnet_fused.BasicBlock(16, 16).to(cuda.device, dtype).to(memory_format=torch.channels_last)
    draws = [torch.randn(4, 16, 8, 8, device=cuda.device, dtype=dtype).contiguous(memory_format=torch.channels_last)
             for _ in range(4)]  # fmt: skip
    twin = copy.deepcopy(block)
    x, grad = draws[0].clone(memory_format=torch.preserve_format).requires_grad_(), draws[1].clone()
    step = training_step(block, x, grad, cuda.backend)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    block.load_state_dict(twin.state_dict())
    with torch.no_grad():
        x.copy_(draws[2])
        grad.copy_(draws[3])
    graph.replay()
    other = draws[2].clone(memory_format=torch.preserve_format).requires_grad_()
    calls = training_step(twin, other, draws[3], cuda.backend)
    calls()
    assert_bit_equal(step.out, calls.out)
    assert_bit_equal(x.grad, other.grad)
    for mine, its in zip([p.grad for p in block.parameters()], [p.grad for p in twin.parameters()]):
        assert_bit_equal(mine, its)
    for mine, its in zip(block.buffers(), twin.buffers()):
        assert_bit_equal(mine, its)


def test_graphed_callable(cuda):
    """torch.cuda.make_graphed_callables takes a fused block as it takes any other."""
    torch.manual_seed(0)
    block = resnet_fused.BasicBlock(16, 16).to(cuda.device)
    twin = copy.deepcopy(block)
    x = torch.randn(4, 16, 8, 8, device=cuda.device, requires_grad=True)
    with resnet_fused.backend(cuda.backend):
        graphed = torch.cuda.make_graphed_callables(block, (x.detach().clone().requires_grad_(),))
        block.load_state_dict(twin.state_dict())
        results = []
        for module in (graphed, twin):
            out = module(x)
            (dx,) = torch.autograd.grad(out.square().sum(), x)
            results.append((out.detach().clone(), dx.clone()))
    for mine, its in zip(*results):
        assert_bit_equal(mine, its)


@pytest.mark.parametrize("index", [0, 1])
def test_another_stream(index, cuda):
    if index >= torch.cuda.device_count():
        pytest.skip("no second CUDA device here")
    device = torch.device("cuda", index)
    torch.manual_seed(0)
    block = resnet_fused.BasicBlock(16, 16).to(device)
    twin = copy.deepcopy(block)
    x = torch.randn(4, 16, 8, 8, device=device)
    with resnet_fused.backend(cuda.backend):
        expected = twin(x)
        torch.cuda.synchronize(device)
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.Stream(device)) as _:
            out = block(x)
            out.sum().backward()
    torch.cuda.synchronize(device)
    assert_bit_equal(out, expected)
    assert all(torch.isfinite(p.grad).all() for p in block.parameters())
