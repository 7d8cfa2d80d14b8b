"""The convolutions of layers.py one by one: ``pytest benchmarks/test_layers_speed.py --batch 16``.

pytest-benchmark's time is ours; torch's convolution alone has its turn before each round, and is in extra_info.
"""

from collections import Counter

import pytest
import torch
from torch import nn
from torchvision import models

from convolutions import LAYERS, LAYOUTS, MODELS, Work, algorithms, running
from turns import faster, seconds, speedup, summary, warm_up


def batch_of(config):
    """One image where nothing is measured."""
    return 1 if config.getoption("benchmark_disable") else config.getoption("batch")


def pytest_generate_tests(metafunc):
    if "which" in metafunc.fixturenames:
        cases = [(layer, which, name) for layer in LAYERS for which in layer.passes
                 for name in algorithms(layer, batch_of(metafunc.config))]  # fmt: skip
        metafunc.parametrize(("layer", "which", "algorithm"), cases, ids=lambda value: str(value))


@pytest.fixture(scope="module")
def works():
    """The layer at hand: tests of one layer follow each other."""
    return {}


def prepared(works, layer, batch):
    if (layer, batch) not in works:
        works.clear()
        works[layer, batch] = Work(layer, batch)
    return works[layer, batch]


def test_convolution(benchmark, request, works, fma_peak, copy_bandwidth, layer, which, algorithm):
    batch = batch_of(request.config)
    work = prepared(works, layer, batch)
    contenders = work.contenders(which)
    times = {layout: [] for layout in LAYOUTS}

    def theirs():
        for layout in LAYOUTS:
            times[layout].append(seconds(contenders[layout]))

    benchmark.group = f"{layer} {which}"
    with running(algorithm):
        if not benchmark.disabled:
            warm_up(contenders)
        benchmark.pedantic(contenders["ours"], setup=theirs, rounds=9, iterations=1)
    if benchmark.stats is None:  # under --benchmark-disable
        return
    times = {"ours": benchmark.stats.stats.data, **times}
    best, ours = faster(times), benchmark.stats.stats.median
    benchmark.extra_info |= {
        "algorithm": algorithm,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "torch ms": {layout: summary(times[layout]) for layout in LAYOUTS},
        "torch's better layout": best,
        "speed-up": {name: round(value, 3) for name, value in speedup(times).items()},
        "of FMA peak": round(layer.operations(batch) / ours / 1e9 / fma_peak, 3),
        "torch of FMA peak": round(layer.operations(batch) / summary(times[best])["median"] / 1e6 / fma_peak, 3),
        "of copy": round(work.ours_bytes[which] / ours / 1e9 / copy_bandwidth, 3),
        "FMA peak GFLOP/s": round(fma_peak, 1),
        "copy GB/s": round(copy_bandwidth, 2),
    }


@pytest.mark.parametrize("model", MODELS)
def test_layers_are_all_convolutions_of_the_models(model):
    found = Counter()

    def note(module, inputs, output):
        C, side = inputs[0].shape[1:3]
        found[C, module.out_channels, side, module.kernel_size[0], module.stride[0], module.padding[0]] += 1

    with torch.device("meta"):
        network = getattr(models, model)()
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(note)
        network(torch.empty(1, 3, 224, 224))
    index = MODELS.index(model)
    assert found == {(*layer[:5], layer.padding): layer.counts[index] for layer in LAYERS if layer.counts[index]}
