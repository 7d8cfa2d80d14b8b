"""Fixtures of the benchmarks: the machine's limits, and bytes per second beside every timing."""

import pytest
import torch

import turns
from resnet_fused import _cpu


def pytest_addoption(parser):
    parser.addoption("--batch", type=int, default=16, help="images in the batches of test_layers_speed.py")


@pytest.fixture(scope="session")
def copy_bandwidth():
    """GB/s of a copy, in this very run."""
    return turns.copy_bandwidth()


@pytest.fixture(scope="session")
def fma_peak():
    """GFLOP/s of float32 multiply-adds on torch's threads, in this very run."""
    return _cpu.fma_peak(torch.get_num_threads())


@pytest.fixture
def timed(benchmark, copy_bandwidth):
    """``timed(function, group, moved)``: benchmark it and note GB/s for ``moved`` bytes, next to a plain copy's.

    ``moved`` counts each operand and result once: what no implementation can do without. Eager moves more, so that
    its GB/s on the same count are lower by as much.
    """

    def run(function, group, moved):
        benchmark.group = group
        function()  # memory and caches are warm before the first round
        result = benchmark.pedantic(function, rounds=9, iterations=1)
        if benchmark.stats is not None:  # None under --benchmark-disable
            benchmark.extra_info["GB/s"] = round(moved / benchmark.stats.stats.median / 1e9, 2)
        benchmark.extra_info["copy GB/s"] = round(copy_bandwidth, 2)
        benchmark.extra_info["moved MiB"] = round(moved / 2**20, 2)
        benchmark.extra_info["threads"] = torch.get_num_threads()
        return result

    return run
