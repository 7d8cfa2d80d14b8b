"""Input that eager rejects: the same exception, the same words, and nothing modified before it is raised."""

import itertools

import pytest
import torch
import torchvision.models.resnet as tv
from eager_pairs import BLOCKS, KINDS, assert_same, batch_norms, buffers, compare, image, outcome, pair, step
from torch import nn

import resnet_fused
from resnet_fused.modules import record


def forward(x):
    return lambda module: module(x)


def on_batch_norm(modules, index, change):
    """The same change to batch norm number `index` of both modules."""
    for module in modules:
        change(batch_norms(module)[index])
    return modules


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_single_value_per_channel(kind):
    error = compare(forward(image(kind, batch=1, size=1)), pair(kind), runs=None, raises=ValueError)
    assert error[1].startswith("Expected more than 1 value per channel when training, got input size")


@pytest.mark.parametrize("kind", ("basic", "bottleneck"))
def test_a_single_value_per_channel_is_fine_by_running_statistics(kind):
    modules = [module.eval() for module in pair(kind)]
    compare(lambda module: step(module, image(kind, batch=1, size=1)), modules)


def test_a_single_value_at_the_second_batch_norm_only():
    """conv1 of stride 1 leaves 4 values to bn1; the strided conv2 leaves 1 to bn2."""
    kind = "bottleneck_projection"
    error = compare(forward(image(kind, batch=1, size=2)), pair(kind), runs=None, raises=ValueError)
    assert "[1, 8, 1, 1]" in error[1]


@pytest.mark.parametrize("training", (True, False))
def test_a_batch_norm_alone_in_training_mode_is_restored_too(training):
    modules = pair("basic")
    for module in modules:
        module.train(training)
        module.bn1.train()
    compare(forward(image(batch=1, size=1)), modules, runs=None, raises=ValueError)


@pytest.mark.parametrize("shape", ((8, 6, 6), (2, 8, 6), (8,), (1, 2, 8, 6, 6)))
def test_input_that_is_not_4d(shape):
    error = outcome(forward(torch.randn(shape, dtype=torch.float64)), pair("basic")[0])
    compare(forward(torch.randn(shape, dtype=torch.float64)), pair("basic"), runs=None, raises=error[0])


@pytest.mark.parametrize("kind", KINDS)
def test_channels_that_are_not_the_convolutions(kind):
    x = torch.randn(2, 5, 6, 6, dtype=torch.float64)
    error = compare(forward(x), pair(kind), runs=None, raises=RuntimeError)
    assert "channels, but got 5 channels instead" in error[1]


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("vector", ("weight", "bias", "running_mean", "running_var"))
@pytest.mark.parametrize("index", (0, 1, 2))
def test_channels_that_are_not_the_batch_norms(index, vector, training):
    def shorten(bn):
        value = getattr(bn, vector)[:-1].detach().clone()
        setattr(bn, vector, nn.Parameter(value) if vector in ("weight", "bias") else value)

    modules = on_batch_norm(pair("basic_projection"), index, shorten)
    for module in modules:
        module.train(training)
    error = compare(forward(image("basic_projection")), modules, runs=None, raises=RuntimeError)
    assert f"{vector} should contain" in error[1]


def test_a_shortcut_of_another_shape():
    modules = pair("basic")
    for module in modules:
        module.conv2 = nn.Conv2d(8, 8, 3, 2, 1, bias=False, dtype=torch.float64)
        nn.init.constant_(module.conv2.weight, 0.1)
    compare(forward(image()), modules, runs=None, raises=RuntimeError)


@pytest.mark.parametrize("eps", (0, 0.0, -1e-5))
@pytest.mark.parametrize("index", (0, 1))
def test_eps_that_is_not_positive(index, eps):
    modules = on_batch_norm(pair("basic"), index, lambda bn: setattr(bn, "eps", eps))
    error = compare(forward(image()), modules, runs=None, raises=ValueError)
    assert "eps must be positive during training" in error[1]


@pytest.mark.parametrize("eps", (0, 0.0))
def test_eps_zero_is_fine_by_running_statistics(eps):
    modules = on_batch_norm(pair("basic"), 0, lambda bn: setattr(bn, "eps", eps))
    compare(lambda module: step(module, image()), [m.eval() for m in modules], runs=None)


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("missing", ("running_mean", "running_var"))
@pytest.mark.parametrize("index", (0, 1))
def test_one_running_statistic_missing(index, missing, training):
    modules = on_batch_norm(pair("basic"), index, lambda bn: setattr(bn, missing, None))
    for module in modules:
        module.train(training)
    expected = outcome(forward(image()), modules[0])
    modules = on_batch_norm(pair("basic"), index, lambda bn: setattr(bn, missing, None))
    for module in modules:
        module.train(training)
    compare(forward(image()), modules, runs=None, raises=expected[0])


def test_both_running_statistics_missing_uses_the_batch():
    def drop(bn):
        bn.running_mean = bn.running_var = None

    for training in (True, False):
        modules = on_batch_norm(pair("basic"), 1, drop)
        for module in modules:
            module.train(training)
        compare(lambda module: step(module, image()), modules)
    single = image(batch=1, size=1)
    compare(forward(single), [m.eval() for m in modules], runs=None, raises=ValueError)


@pytest.mark.parametrize("dtype", (torch.int32, torch.int64, torch.uint8, torch.bool, torch.complex64, torch.complex128))
@pytest.mark.parametrize("kind", ("basic", "stem"))
def test_integer_and_complex_input(kind, dtype):
    compare(forward(image(kind).to(dtype)), pair(kind), runs=None, raises=RuntimeError)


@pytest.mark.parametrize("dtype", (torch.int32, torch.complex64))
def test_integer_and_complex_convolutions(dtype):
    """What the convolutions accept, the batch norm behind them refuses."""

    def convert(module):
        for conv in (module.conv1, module.conv2):
            conv.weight = nn.Parameter(torch.ones(conv.weight.shape, dtype=dtype), requires_grad=False)
        return module

    expected = outcome(forward(image().to(dtype)), convert(pair("basic")[0]))
    modules = [convert(module) for module in pair("basic")]
    compare(forward(image().to(dtype)), modules, runs=None, raises=expected[0])


DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
COMPUTED = [(half, half, torch.float32) for half in (torch.bfloat16, torch.float16)]
MIXED = [
    pytest.param(
        *dtypes, id="-".join(str(dtype).removeprefix("torch.") for dtype in dtypes),
        marks=pytest.mark.slow if torch.float16 in dtypes[:2] and dtypes not in COMPUTED else (),
    )
    for dtypes in itertools.product(DTYPES, repeat=3)
    if len(set(dtypes)) > 1
]  # fmt: skip


@pytest.mark.parametrize("x_dtype, conv_dtype, norm_dtype", MIXED)
@pytest.mark.parametrize("training", (True, False))
def test_mixed_dtypes(x_dtype, conv_dtype, norm_dtype, training):
    """Errors are eager's; where eager computes (16-bit activations, float32 batch norms) so do we, fused."""
    eager, fused = pair("basic")
    for module in (eager, fused):
        module.train(training)
        for child in module.children():
            child.to(conv_dtype if isinstance(child, nn.Conv2d) else norm_dtype)
    before = buffers(fused)
    expected, result = (outcome(forward(image().to(x_dtype)), m) for m in (eager, fused))
    if isinstance(expected, torch.Tensor):
        assert (x_dtype, conv_dtype, norm_dtype) in COMPUTED
        with record() as records:
            fused.eval()(image().to(x_dtype))
        assert result.dtype == expected.dtype == x_dtype and records[0].backend == "cpu"
        # Four roundings between x and y at values up to 8, each half an ulp.
        half_ulp = torch.finfo(x_dtype).eps / 2
        assert (result - expected).abs().max() <= 4 * 8 * half_ulp
        assert_same(buffers(fused), buffers(eager), tolerance=half_ulp)  # float32 statistics of tensors of 16 bits
    else:
        assert result == expected
        for name, value in buffers(fused).items():
            assert torch.equal(value, before[name]), name


def test_no_channels():
    x = torch.randn(2, 0, 4, 4, dtype=torch.float64)
    compare(forward(x), pair("basic"), runs=None, raises=RuntimeError)


def test_inference_tensor_before_frozen_convolutions():
    """Which need not keep it: eager trains the batch norms behind them."""
    with torch.inference_mode():
        x = image()
    modules = pair("basic")
    for module in modules:
        for conv in (module.conv1, module.conv2):
            conv.weight.requires_grad_(False)
    compare(lambda module: module(x).sum().backward(), modules, runs=None)
    assert all(module.bn2.weight.grad is not None and module.bn2.num_batches_tracked == 1 for module in modules)


@pytest.mark.parametrize("stride_zero", (False, True))
def test_inference_tensor_in_training(stride_zero):
    with torch.inference_mode():
        x = image()
        x = x[:1].expand(3, 8, 6, 6) if stride_zero else x
    error = compare(forward(x), pair("basic"), runs=None, raises=RuntimeError)
    assert error[1].startswith("Inference tensors cannot be saved for backward.")


def test_input_that_is_no_tensor():
    for x in (None, "image", [1.0], 3):
        expected = outcome(forward(x), pair("basic")[0])
        compare(forward(x), pair("basic"), runs=None, raises=expected[0])


def test_a_missing_argument():
    eager, fused = pair("basic")
    assert outcome(lambda module: module(), eager)[0] is TypeError
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        fused()


@pytest.mark.parametrize("arguments", (dict(groups=2), dict(base_width=128), dict(dilation=2)))
def test_constructor_errors(arguments):
    expected = outcome(lambda block: block(8, 8, **arguments), tv.BasicBlock)
    assert isinstance(expected[0], type)
    assert outcome(lambda block: block(8, 8, **arguments), resnet_fused.BasicBlock) == expected
