"""Tensors of more than 2^31 elements: every offset must be 64 bits wide. Values are small, so that sums are exact."""

import pytest
import torch

pytestmark = pytest.mark.slow
CHANNELS, SIDE = 64, 1024
BATCH = 2**31 // (CHANNELS * SIDE * SIDE) + 1
NEEDED = 16 * 2**30  # bytes: three such tensors in float16, and room


@pytest.fixture
def large(cuda):
    if torch.cuda.mem_get_info()[0] < NEEDED:
        pytest.skip(f"needs {NEEDED // 2**30} GiB of free memory on the device")
    yield lambda layout: torch.ones(BATCH, CHANNELS, SIDE, SIDE, dtype=torch.float16, device=cuda.device).contiguous(
        memory_format=layout)  # fmt: skip
    torch.cuda.empty_cache()


LAYOUTS = pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["nhwc", "nchw"])


@LAYOUTS
def test_apply(layout, large, cuda):
    """z = (x − 1)·2 + 3, and the last image has zeros."""
    x = large(layout)
    x[-1] = 0
    affine = torch.tensor([1.0, 2.0, 3.0, 1.0], device=cuda.device)[:, None].expand(4, CHANNELS).contiguous()
    y = cuda.operators.bn_apply(x, affine, True)
    assert y[0].eq(3).all() and y[BATCH // 2].eq(3).all() and y[-1].eq(1).all()
    assert y.numel() > 2**31 and y.stride() == x.stride()


@LAYOUTS
def test_statistics(layout, large, cuda):
    """Ones but for one image: the mean and the squared deviations by hand; 1e-5: a few roundings of float32."""
    x = large(layout)
    x[-1] = 3
    mean, m2 = cuda.operators.bn_statistics(x).double().cpu()
    count, pixels = BATCH * SIDE * SIDE, SIDE * SIDE
    expected = 1 + 2 * pixels / count
    torch.testing.assert_close(mean, torch.full_like(mean, expected), rtol=1e-5, atol=0)
    deviations = pixels * (3 - expected) ** 2 + (count - pixels) * (1 - expected) ** 2
    torch.testing.assert_close(m2, torch.full_like(m2, deviations), rtol=1e-5, atol=0)


@LAYOUTS
def test_backward(layout, large, cuda):
    """grad·scale where z > 0: the last image's arguments are negative."""
    x = large(layout)
    x[-1] = -1
    affine = torch.tensor([0.0, 2.0, 0.0, 1.0], device=cuda.device)[:, None].expand(4, CHANNELS).contiguous()
    means = torch.zeros(2, CHANNELS, device=cuda.device)
    sums = cuda.operators.bn_backward_reduce(x, None, x, affine, True).double().cpu()
    expected = torch.full_like(sums[0], float((BATCH - 1) * SIDE * SIDE))
    torch.testing.assert_close(sums[0], expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(sums[1], expected, rtol=1e-5, atol=0)
    dx = cuda.operators.bn_backward_apply(x, None, x, affine, True, means)
    assert dx[0].eq(2).all() and dx[BATCH // 2].eq(2).all() and dx[-1].eq(0).all()
