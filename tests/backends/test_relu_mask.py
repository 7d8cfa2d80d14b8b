"""A ReLU's mask as bits: which there are, in which order, and that the backward pass reads them in the place of `out`."""

import cuda_emulated
import pytest
import torch
from operator_cases import DTYPES, FORMATS
from tolerance import assert_bit_equal

from resnet_fused import ops
from resnet_fused.backends import relu_mask

BACKENDS = ["reference", cuda_emulated.BACKEND]
# Whole bytes of channels, of pixels, of both and of neither; halves of them for a vector of 16 lanes; one of either.
SHAPES = [(2, 24, 3, 5), (2, 5, 4, 6), (3, 40, 4, 10), (2, 5, 3, 5), (2, 8, 1, 1), (2, 1, 4, 4), (2, 16, 70, 9)]


def _sum_of(y):
    """Arguments whose result is relu(y): z(x) is 0."""
    C = y.shape[1]
    affine = torch.ones(4, C, dtype=torch.float64 if y.dtype == torch.float64 else torch.float32)
    affine[1:3] = 0
    return torch.ones_like(y), affine, y


def _some(shape, dtype, layout, special=(torch.nan, 0.0, -0.0, -1.0, torch.inf, -torch.inf)):
    generator = torch.Generator().manual_seed(sum(shape))
    y = torch.randn(shape, generator=generator)
    places = torch.randperm(y.numel(), generator=generator)[: y.numel() // 4]
    y.view(-1)[places] = torch.tensor(special).repeat(places.numel())[: places.numel()]
    return y.to(dtype).contiguous(memory_format=FORMATS[layout])


def _bits(y):
    """One for each element, in the order of memory."""
    of_channels = y.shape[2:].numel() == 1 or (y.shape[1] > 1 and not y.is_contiguous())
    flat = (y.permute(0, 2, 3, 1) if of_channels else y).flatten().tolist()
    return [not value <= 0 for value in flat], y.shape[1] if of_channels else y.shape[2:].numel()


def _unpacked(mask):
    """Of the bytes in the order of memory."""
    flat = (mask.permute(0, 2, 3, 1) if mask.dim() == 4 else mask).flatten().tolist()
    return [bool(byte >> bit & 1) for byte in flat for bit in range(8)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bit_is_set_where_relu_passes(backend, shape, layout, dtype):
    y = _some(shape, DTYPES[dtype], layout)
    out, mask = ops.get(backend).bn_apply_mask(*_sum_of(y))
    assert_bit_equal(out, y.relu())
    expected, run = _bits(y)
    assert mask.dtype == torch.uint8
    if run % 8:
        assert mask.shape == (0,)
    else:
        assert mask.is_contiguous(memory_format=torch.channels_last if mask.dim() == 4 else torch.contiguous_format)
        assert _unpacked(mask) == expected


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype, tiny", [(torch.float16, 2.0**-26), (torch.bfloat16, 2.0**-136)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_becomes_zero_does_not_pass(backend, dtype, tiny, layout):
    """Eager's ReLU masks by its result, in which such a value is 0."""
    x = torch.zeros(2, 8, 4, 4, dtype=dtype).contiguous(memory_format=FORMATS[layout])
    affine = torch.tensor([0.0, 1.0, tiny, 1.0]).view(4, 1).expand(4, 8).contiguous()  # the shift is float32
    out, mask = ops.get(backend).bn_apply_mask(x, affine, x)
    assert not out.any() and not mask.any() and mask.numel() == 32


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mask_is_read_in_the_place_of_out(backend, shape, layout, dtype, inputs):
    """Out need not be given then; here it would let everything pass."""
    y, grad = _some(shape, DTYPES[dtype], layout), torch.randint(1, 4, shape).to(DTYPES[dtype])
    x, affine, _ = _sum_of(y)
    pairs = [x, affine] * inputs
    mask = relu_mask.pack(y)
    out = None if mask.dim() > 1 else torch.ones_like(y)
    g, sums = ops.get(backend).bn_backward_mask_reduce(grad, out, *pairs, mask=mask)
    if out is None:
        ones = torch.ones_like(y)
        assert_bit_equal(ops.get(backend).bn_backward_mask_reduce(grad, ones, *pairs, mask=mask)[0], g)
    passes = torch.ones_like(y, dtype=torch.bool) if mask.dim() == 1 else ~(y <= 0)
    assert_bit_equal(g, grad * passes)
    # exact: sums of small integers; x is its mean
    assert_bit_equal(sums[0], g.to(sums.dtype).sum((0, 2, 3)))
    assert sums.shape[0] == 1 + inputs and not sums[1:].any()


@pytest.mark.parametrize("layout", FORMATS)
def test_masks_of_a_batch_of_tensors(layout):
    """By vmap, which knows no writing of batches into one tensor."""
    y = torch.stack([_some((2, 8, 4, 4), torch.float32, "nchw", special=(0.0, i - 1.0)) for i in range(3)])
    y = y.movedim(2, -1).contiguous().movedim(-1, 2) if layout == "nhwc" else y
    masks = torch.func.vmap(relu_mask.pack)(y)
    assert torch.equal(masks, torch.stack([relu_mask.pack(one) for one in y]))
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout, other", [("nhwc", "nchw"), ("nchw", "nhwc")])
def test_a_mask_in_another_order(backend, layout, other):
    """As where a saved tensor's hook changed the memory format of what the mask goes with."""
    y = _some((2, 8, 4, 4), torch.float32, layout)
    mask = relu_mask.pack(y)
    x, affine, out = (t.contiguous(memory_format=FORMATS[other]) if t.dim() == 4 else t for t in _sum_of(y))
    grad = torch.ones_like(x)
    g, _ = ops.get(backend).bn_backward_mask_reduce(grad, out, x, affine, mask=mask)
    assert_bit_equal(g, (~(y <= 0)).float().contiguous(memory_format=FORMATS[other]))
    # Of the mask itself, the bits are where they were.
    strided = torch.empty(2 * mask.numel(), dtype=torch.uint8)[::2].view(mask.shape).copy_(mask)
    x, affine, _ = _sum_of(y)
    g, _ = ops.get(backend).bn_backward_mask_reduce(torch.ones_like(x), torch.ones_like(y), x, affine, mask=strided)
    assert_bit_equal(g, (~(y <= 0)).float())


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("backend", ["cpu", "library"])
def test_a_cpu_has_none(backend, layout):
    y = _some((2, 8, 4, 4), torch.float32, layout)
    out, mask = ops.get(backend).bn_apply_mask(*_sum_of(y))
    assert_bit_equal(out, y.relu())
    assert mask.dtype == torch.uint8 and mask.shape == (0,)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 8, 0, 4), (2, 0, 4, 4)], ids=str)
def test_empty(backend, shape):
    x = torch.empty(shape)
    affine = torch.ones(4, shape[1])
    y, mask = ops.get(backend).bn_apply_mask(x, affine, x)
    g, sums = ops.get(backend).bn_backward_mask_reduce(x, y, x, affine, mask=mask)
    assert y.shape == g.shape == x.shape and not mask.numel() and sums.shape == (2, shape[1]) and not sums.any()
