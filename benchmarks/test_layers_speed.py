"""The convolutions of layers.py one by one, for pytest-benchmark: ``pytest benchmarks/test_layers_speed.py``."""

import pytest
import torch

from layers import LAYERS, PASSES, TORCH_PASS, Work, algorithms
from resnet_fused import _cpu


@pytest.fixture(scope="session")
def fma_peak():
    """GFLOP/s, in this very run."""
    return _cpu.fma_peak(torch.get_num_threads())


@pytest.fixture(scope="module")
def works():
    """The layer at hand: tests of one layer follow each other."""
    return {}


def prepared(works, layer, batch):
    if (layer, batch) not in works:
        works.clear()
        works[layer, batch] = Work(layer, batch)
    return works[layer, batch]


@pytest.mark.parametrize("side", ["winograd", "direct", "NCHW", "NHWC"])
@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_convolution(benchmark, request, works, fma_peak, layer, which, side):
    batch = 1 if request.config.getoption("benchmark_disable") else request.config.getoption("batch")
    work = prepared(works, layer, batch)
    if which not in work.passes(layer) or (side in ("winograd", "direct") and side not in algorithms(layer, batch)):
        pytest.skip("the layer has no such pass or algorithm")
    ours = side in ("winograd", "direct")
    function = work.ours[which] if ours else work.torch[TORCH_PASS[which], side]
    benchmark.group = f"{layer} {which}"
    _cpu.set_winograd(side != "direct")
    try:
        function()
        benchmark.pedantic(function, rounds=9, iterations=1)
    finally:
        _cpu.set_winograd(True)
    if benchmark.stats is not None:  # None under --benchmark-disable
        benchmark.extra_info["of FMA peak"] = round(layer.operations(batch) / benchmark.stats.stats.median / 1e9 / fma_peak, 3)
