"""Fixtures of the benchmarks: the machine's copy bandwidth, and bytes per second beside every timing."""

import time

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--batch", type=int, default=16, help="images in the layers' batches")


COPY_BYTES = 256 * 2**20  # beyond any last-level cache


@pytest.fixture(scope="session")
def copy_bandwidth():
    """GB/s of tensor.copy_ (bytes read plus bytes written), best of five, in this very run."""
    source = torch.zeros(COPY_BYTES // 4)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - start)
    return 2 * COPY_BYTES / min(seconds) / 1e9


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
