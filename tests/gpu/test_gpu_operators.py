"""The operators on CUDA tensors, over the tables that the emulator runs every day, against the reference on the CPU."""

import pytest
import torch
from checks import check_integers, check_memory_format, check_oracle, check_what_is_written
from on_device import why_not
from operator_cases import DTYPES, FORMATS, MODES, make_case
from problems import CONVS
from test_cuda_emulated import CONVOLUTIONS, EXACT, KERNELS, PROBLEMS, SHAPES
from tolerance import WINOGRAD, assert_bit_equal

if why_not() is not None:  # said once: ten thousand tests would be collected to say it each
    pytest.skip(why_not(), allow_module_level=True)

RAGGED = next(p for p in CONVS if p.id == "ragged")


@pytest.mark.parametrize("mode", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", SHAPES, ids=lambda p: p.id)
def test_kernels_against_float64(problem, layout, dtype, mode, gpu):
    check_oracle(make_case(mode, problem, DTYPES[dtype], FORMATS[layout]), gpu.kernels)


@pytest.mark.parametrize("mode", [mode for mode in KERNELS if mode in EXACT])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", SHAPES[:3], ids=lambda p: p.id)
def test_kernels_on_integers(problem, layout, dtype, mode, gpu):
    case = make_case(mode, problem, DTYPES[dtype], FORMATS[layout], integer=True)
    check_integers(case, gpu.kernels, DTYPES[dtype], rounds_between=False)


@pytest.mark.parametrize("mode", CONVOLUTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_convolutions_against_float64(problem, layout, dtype, mode, gpu):
    # cuDNN may choose Winograd's algorithm, whose roundings are some times a direct sum's.
    check_oracle(make_case(mode, problem, DTYPES[dtype], FORMATS[layout]), gpu.kernels, WINOGRAD)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", FORMATS)
def test_what_is_written(layout, mode, gpu, poison):
    """All of every result, no input, and the same bits a second time."""
    case = make_case(mode, RAGGED, torch.float32, FORMATS[layout])
    check_what_is_written(case.mapped(lambda t: t.to(gpu.device)), gpu.operators)
    check_memory_format(case, gpu.kernels)


@pytest.mark.parametrize("mode", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_same_bits_every_time(dtype, mode, gpu):
    """Sums are in an order that no scheduling decides: ten runs of many blocks give one result."""
    case = make_case(mode, SHAPES[4], DTYPES[dtype], torch.channels_last).mapped(lambda t: t.to(gpu.device))
    first = case.run(gpu.operators)
    for _ in range(10 if gpu.device.type == "cuda" else 1):
        for a, b in zip(first, case.run(gpu.operators)):
            assert_bit_equal(a, b)


@pytest.mark.parametrize("mode", KERNELS)
def test_another_stream(mode, cuda):
    """Work is in the stream that is current: behind what was put there, and nobody need wait for another."""
    values = make_case(mode, SHAPES[2], torch.float32, torch.channels_last).mapped(lambda t: t.to(cuda.device))
    case, expected = values.mapped(torch.zeros_like), values.run(cuda.operators)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)  # some milliseconds, for an operator in the wrong stream to be too early
        for operand, value in zip(case.arguments, values.arguments):
            if isinstance(operand, torch.Tensor):
                operand.copy_(value)
        results = case.run(cuda.operators)
    stream.synchronize()
    for a, b in zip(results, expected):
        assert_bit_equal(a, b)


@pytest.mark.parametrize("mode", KERNELS)
def test_second_device(mode, cuda):
    if torch.cuda.device_count() < 2:
        pytest.skip("no second CUDA device here")
    case = make_case(mode, SHAPES[2], torch.float32, torch.channels_last)
    assert torch.cuda.current_device() == 0
    for a, b in zip(case.run(cuda.on(1)), case.run(cuda.kernels)):
        assert_bit_equal(a, b)
    assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("size", [(0, 3, 4, 4), (2, 3, 0, 4)])
def test_empty_batch(size, gpu):
    x, affine, kernels = torch.empty(size), torch.ones(4, 3), gpu.kernels
    assert kernels.bn_apply(x, affine, True).shape == x.shape
    assert_bit_equal(kernels.bn_backward_reduce(x, None, x, affine, True), torch.zeros(2, 3))
    assert kernels.bn_backward_apply(x, None, x, affine, True, torch.zeros(2, 3)).shape == x.shape
    if size[0] == 0:
        conv = (torch.ones(5, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1)
        y, _ = kernels.conv_fprop(x, *conv, None, False, False, None, None, None, False)
        assert y.shape == (0, 5, 4, 4)


def test_errors_name_the_device(cuda):
    x, affine = torch.zeros(1, 3, 4, 4, device=cuda.device), torch.ones(4, 3)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        cuda.operators.bn_apply(x, affine, True)
