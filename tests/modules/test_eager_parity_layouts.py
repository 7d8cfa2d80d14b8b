"""Memory formats, strides and storage: y and dx come out laid out as eager's, whatever comes in."""

import pytest
import torch
from eager_pairs import BLOCKS, KINDS, compare, image, pair, step
from operator_cases import HALVES_EVERYDAY

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def laid_out(name):
    return lambda t: t.contiguous(memory_format=FORMATS[name])


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("grad", FORMATS)
@pytest.mark.parametrize("x", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_mixes_of_formats(kind, x, grad, weights, training):
    def action(module):
        generator = torch.Generator().manual_seed(3)

        def grad_out(y):
            g = torch.randn(y.shape, generator=generator, dtype=y.dtype)
            return laid_out(grad)(g) if g.dim() == 4 else g

        result = step(module, laid_out(x)(image(kind)), grad_out)
        return {name: result[name] for name in ("y", "dx")}, result["dp"]

    modules = [module.to(memory_format=FORMATS[weights]).train(training) for module in pair(kind)]
    compare(action, modules)


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("grad", FORMATS)
@pytest.mark.parametrize("x", FORMATS)
@pytest.mark.parametrize("kind", BLOCKS)
def test_strides_follow_the_input(kind, x, grad, training):
    def action(module):
        result = step(module, laid_out(x)(image(kind)), lambda y: laid_out(grad)(torch.ones_like(y)))
        return {name: result[name] for name in ("y", "dx")}

    expected = compare(action, [module.train(training) for module in pair(kind)], strides=True)
    assert expected["y"].is_contiguous(memory_format=FORMATS[x])


def sliced(x):
    return torch.cat((x, x), 1)[:, : x.shape[1]]


def every_other(x):
    return x.repeat_interleave(2, 3)[..., ::2]


def unaligned(x):
    """Storage offset 1: no address is a multiple of 16 bytes."""
    flat = torch.empty(x.numel() + 1, dtype=x.dtype)
    return flat[1:].copy_(x.flatten()).view(x.shape)


def unaligned_channels_last(x):
    flat = torch.empty(x.numel() + 1, dtype=x.dtype)
    N, C, H, W = x.shape
    return flat[1:].copy_(x.permute(0, 2, 3, 1).flatten()).view(N, H, W, C).permute(0, 3, 1, 2)


def permuted(x):
    """Dense, but neither contiguous nor channels_last: the memory order is W, H, C, N."""
    return x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)


def transposed(x):
    return x.transpose(2, 3).contiguous().transpose(2, 3)


def expanded_batch(x):
    return x[:1].expand(x.shape)


def expanded_space(x):
    return x[:, :, :1, :1].expand(x.shape)


def expanded_scalar(x):
    return torch.ones((), dtype=x.dtype).expand(x.shape)


LAYOUTS = (sliced, every_other, unaligned, unaligned_channels_last, permuted, transposed, expanded_batch)


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("layout", (*LAYOUTS, expanded_space), ids=lambda f: f.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_layouts_of_the_input(kind, layout, training):
    x = layout(image(kind))

    def action(module):
        leaf = x.detach()
        y = module(leaf.requires_grad_())
        y.square().sum().backward()
        return y.detach(), leaf.grad, [p.grad for p in module.parameters()]

    compare(action, [module.train(training) for module in pair(kind)])


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("layout", (*LAYOUTS, expanded_scalar), ids=lambda f: f.__name__)
@pytest.mark.parametrize("x_format", FORMATS)
@pytest.mark.parametrize("kind", BLOCKS)
def test_layouts_of_the_gradient(kind, x_format, layout, training):
    def grad_out(y):
        g = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
        return layout(g)

    action = lambda module: step(module, laid_out(x_format)(image(kind)), grad_out)  # noqa: E731
    compare(action, [module.train(training) for module in pair(kind)])


@pytest.mark.parametrize("kind", KINDS)
def test_sum_backward_expands_a_scalar(kind):
    def action(module):
        module(image(kind)).sum().backward()
        return [p.grad for p in module.parameters()]

    compare(action, pair(kind))


@pytest.mark.parametrize("layout", (sliced, unaligned, permuted, every_other), ids=lambda f: f.__name__)
def test_layouts_of_the_weights(layout):
    modules = pair("bottleneck_projection")
    for module in modules:
        for parameter in module.parameters():
            if parameter.dim() == 4:
                parameter.data = layout(parameter.data)
            else:
                parameter.data = unaligned(parameter.data)
    compare(lambda module: step(module, image("bottleneck_projection")), modules)


@pytest.mark.parametrize("dtype", (torch.float32, *HALVES_EVERYDAY), ids=str)
@pytest.mark.parametrize("layout", (unaligned, unaligned_channels_last, sliced), ids=lambda f: f.__name__)
def test_unaligned_input_in_vector_lanes(layout, dtype):
    """The same kernel on the same numbers at an unaligned address: bit-equal results."""
    _, fused = pair("basic", dtype)
    x = image("basic", dtype, size=7)
    aligned = x.contiguous(memory_format=torch.channels_last) if layout is unaligned_channels_last else x
    assert torch.equal(fused(layout(x)), fused(aligned.clone()))


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("kind", KINDS)
def test_the_input_is_not_modified(kind, training):
    """In-place ReLUs notwithstanding; its version counter stays too."""
    for module in pair(kind):
        module.train(training)
        x = image(kind)
        kept, version = x.clone(), x._version
        y = module(x)
        y.sum().backward()
        assert torch.equal(x, kept) and x._version == version
        assert y.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_output_is_the_callers_own(kind):
    """Later steps write neither into an earlier output nor into earlier gradients."""
    _, fused = pair(kind)
    first = step(fused, image(kind))
    kept = {"y": first["y"].clone(), "dx": first["dx"].clone(), "dp": [g.clone() for g in first["dp"]]}
    for seed in range(3):
        step(fused, image(kind, seed=10 + seed))
    assert torch.equal(first["y"], kept["y"]) and torch.equal(first["dx"], kept["dx"])
    assert all(torch.equal(a, b) for a, b in zip(first["dp"], kept["dp"]))


@pytest.mark.parametrize("kind", KINDS)
def test_deterministic_algorithms(kind):
    """torch.empty is NaN-filled then: no element stays unwritten."""
    modules = pair(kind)
    torch.use_deterministic_algorithms(True)
    try:
        expected = compare(lambda module: step(module, image(kind)), modules)
    finally:
        torch.use_deterministic_algorithms(False)
    assert expected["y"].isfinite().all()
