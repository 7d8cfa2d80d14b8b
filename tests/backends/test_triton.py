"""The Triton backend where there is no GPU: imported late, refused with a reason; and its plans, which need neither."""

import importlib.util
import subprocess
import sys

import pytest
import torch

import resnet_fused
from resnet_fused import backends
from resnet_fused.backends.triton import sweep

FORMATS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}


@pytest.mark.slow
def test_the_package_works_without_triton():
    program = (
        "import sys; sys.modules['triton'] = None; import resnet_fused, torch; from resnet_fused import backends;"
        "assert not any(name.startswith('resnet_fused.backends.triton') for name in sys.modules);"
        "resnet_fused.ConvBNAct(3, 4)(torch.randn(2, 3, 5, 5)); print(backends.available()['triton'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "Triton is not installed: run `pip install triton`.\n"


def test_reasons(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if importlib.util.find_spec("triton"):
        assert "finds no NVIDIA GPU" in backends.available()["triton"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install triton" in backends.available()["triton"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_refused_without_a_gpu():
    module = resnet_fused.ConvBNAct(3, 4)
    with resnet_fused.backend("triton"), pytest.raises(resnet_fused.BackendUnavailable, match="'triton' cannot serve"):
        module(torch.randn(2, 3, 5, 5))


def _tiles(plan):
    view = plan.view
    return view.images * sweep.ceil_div(view.pixels, view.tile_pixels)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "size",
    [(1, 1, 1, 1), (3, 5, 7, 9), (32, 64, 56, 56), (2, 2048, 7, 7), (1, 3, 45, 47), (5, 40, 1, 1), (256, 64, 112, 112)],
)
def test_a_sweep_covers_the_tensor_once(size, dtype, layout):
    x = torch.empty(size, dtype=dtype, device="meta", memory_format=FORMATS[layout])
    plan = sweep.sweep_of(x)
    view, tiles = plan.view, _tiles(plan)
    assert view.images * view.channels * view.pixels == x.numel()
    assert view.tile_pixels <= plan.block_p and view.tile_pixels % sweep.ALIGNMENT == 0
    # All of an image's tiles but the last are whole, and that one is not empty.
    assert 0 < view.pixels - (sweep.ceil_div(view.pixels, view.tile_pixels) - 1) * view.tile_pixels <= view.tile_pixels
    assert 0 <= plan.across * plan.block_c - view.channels < plan.block_c
    # As the kernels share out tiles: cdiv(tiles, chunks) each, and no chunk without any.
    share = sweep.ceil_div(tiles, plan.chunks)
    assert share <= sweep.MOST_TILES and (plan.chunks - 1) * share < tiles <= plan.chunks * share
    c, w = size[1] - 1, size[3] - 1
    assert c * x.stride(1) + w * x.stride(3) == c * view.channel_stride + w * view.pixel_stride


def test_large_tensors_have_few_partial_sums():
    """Half a percent of the tensor's bytes at most."""
    x = torch.empty(256, 64, 112, 112, dtype=torch.float16, device="meta", memory_format=torch.channels_last)
    plan = sweep.sweep_of(x)
    assert plan.chunks * 2 * 64 * 8 * 200 <= x.numel() * x.element_size()
