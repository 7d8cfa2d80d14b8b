"""Units that are measured: what is timed, what is remembered, when nothing is measured, and that no trace is left."""

import copy
import subprocess
import sys
import time

import pytest
import torch
import torchvision
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import resnet_fused
from resnet_fused import dispatch
from resnet_fused.dispatch import measurement, measuring


@pytest.fixture
def delays(monkeypatch):
    """Makes measured times what the test says: {candidate: milliseconds}, and counts the calls."""
    said = {"cpu": 5.0, "library": 1.0, "eager": 9.0}
    calls = []

    def measure(candidates, synchronize):
        for name, call in candidates.items():
            call()
            calls.append(name)
        synchronize()
        return {name: said[name] for name in candidates}

    monkeypatch.setattr(dispatch, "measure", measure)
    said["calls"] = calls
    return said


def _block(seed=0):
    torch.manual_seed(seed)
    return resnet_fused.BasicBlock(4, 4)


def _runs(module, x):
    with resnet_fused.modules.record() as records:
        module(x)
    return [(record.backend, record.reason) for record in records]


X = torch.randn(2, 4, 6, 6)


def test_the_fastest_runs_and_is_remembered(table, delays):
    module = _block()
    with measuring("always"):
        assert _runs(module, X) == [("library", "measured: library 1 ms, cpu 5 ms, eager 9 ms")]
        assert delays["calls"] == ["cpu", "library", "eager"]
        assert _runs(module, X)[0][0] == "library" and len(delays["calls"]) == 3
    assert _runs(module, X)[0][0] == "library" and len(delays["calls"]) == 3
    dispatch._choices.clear()  # as in another process
    assert _runs(_block(1), X)[0][0] == "library" and len(delays["calls"]) == 3
    delays["eager"] = 0.5
    with measuring("again"):
        assert _runs(module, X) == [(None, "measured: eager 0.5 ms, library 1 ms, cpu 5 ms")]


@pytest.mark.parametrize(
    "change",
    [
        lambda: (_block(), torch.randn(3, 4, 6, 6)),
        lambda: (_block(), X.contiguous(memory_format=torch.channels_last)),
        lambda: (_block().double(), X.double()),
        lambda: (_block().eval(), X),
        lambda: (_block().requires_grad_(False), X),
        lambda: (_block(), X.clone().requires_grad_()),
        lambda: (resnet_fused.BasicBlock(4, 4, downsample=torch.nn.Sequential(
            torch.nn.Conv2d(4, 4, 1, bias=False), torch.nn.BatchNorm2d(4))), X),
        lambda: (resnet_fused.ConvBNAct(4, 4, 3), X),
        lambda: (resnet_fused.ConvBNAct(4, 4, 3, groups=2), X),
        lambda: (resnet_fused.ConvBNAct(4, 4, 3, stride=2), X),
    ],
)  # fmt: skip
def test_other_problems_are_measured_apart(change, table, delays):
    with measuring("always"):
        _runs(_block(), X)
        _runs(*change())
    assert len(delays["calls"]) == 6 and len(next(iter(table.machines.values()))) == 2


def test_threads_and_switches_are_measured_apart(table, delays):
    with measuring("always"):
        _runs(_block(), X)
        torch.set_num_threads(2)
        try:
            _runs(_block(), X)
        finally:
            torch.set_num_threads(1)
        resnet_fused.set_winograd(False)
        try:
            _runs(_block(), X)
        finally:
            resnet_fused.set_winograd(True)
    assert len(delays["calls"]) == 9
    plain, more, direct = sorted(table.machines)
    assert "1 threads" in plain and "2 threads" in direct + more and "without Winograd" in direct + more + plain


def test_a_candidate_that_is_new_is_measured_when_asked_for(table, delays):
    module = _block()
    with measuring("always"):
        _runs(module, X)
    ((machine, problems),) = table.machines.items()
    (problem,) = problems
    table.record(machine, problem, {"cpu": 5.0, "eager": 9.0})  # as measured before there was the library's
    with measuring("always"):
        assert _runs(module, X)[0][0] == "library" and len(delays["calls"]) == 6
    assert table.times(machine, problem).keys() == {"cpu", "library", "eager"}


def test_nothing_is_recorded_where_every_candidate_lacks_memory(table, delays, monkeypatch):
    monkeypatch.setattr(dispatch, "measure", lambda candidates, synchronize: {})
    with measuring("always"):
        assert _runs(_block(), X) == [("cpu", "SIMD kernels for cpu float32")]
    assert not table.path.exists()


@pytest.mark.parametrize("mode, tilings", [("auto", False), ("always", True), ("again", True)])
def test_triton_s_tilings_are_measured_when_asked_for(mode, tilings, delays, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(dispatch, "_measure", mode)
    delays["triton"], seen = 1.0, []
    dispatch._timed(torch.device("cpu"), ("triton", "eager"), lambda: seen.append(torch.backends.cudnn.benchmark))
    assert seen == [tilings, False] and not torch.backends.cudnn.benchmark


def test_a_cpu_measures_only_when_told(table, delays):
    assert _runs(_block(), X) == [("cpu", "SIMD kernels for cpu float32")]
    with measuring("never"):
        _runs(_block(), X)
    assert not delays["calls"] and not table.path.exists()


def test_what_is_asked_for_is_not_measured(table, delays):
    with measuring("always"), resnet_fused.backend("cpu"):
        assert _runs(_block(), X) == [("cpu", "asked for")]
    assert not delays["calls"]


def _deterministic(run):
    torch.use_deterministic_algorithms(True)
    try:
        run()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "within",
    [
        _deterministic,
        lambda run: checkpoint(lambda _: run(), torch.randn(1, requires_grad=True), use_reentrant=False),
        lambda run: torch.func.vmap(lambda x: run())(torch.randn(2)),
    ],
    ids=["deterministic", "checkpoint", "vmap"],
)
def test_when_nothing_is_measured(within, table, delays):
    module, ran = _block().eval(), []

    def run():
        ran.append(_runs(module, X))
        return X.sum()

    with measuring("always"):
        within(run)
        assert ran and all(records == [("cpu", "SIMD kernels for cpu float32")] for records in ran)
        assert not delays["calls"]
        _runs(module, X)  # and afterwards it is
    assert delays["calls"]


def _replica(module):
    """As DataParallel makes them: weights are results, and nobody's parameters."""
    replica = module._replicate_for_data_parallel()
    for name, child in module.named_children():
        replica._modules[name] = _replica(child)
    for name, parameter in module._parameters.items():
        if parameter is None:
            replica._parameters[name] = None
        else:
            setattr(replica, name, parameter.clone())
    return replica


def test_replicas_are_not_measured(table, delays):
    """Their gradients could not be asked for."""
    module = _block()
    with measuring("always"):
        assert _runs(_replica(module), X) == [("cpu", "SIMD kernels for cpu float32")]
    assert not delays["calls"] and not table and all(p.grad is None for p in module.parameters())


def test_a_checkpoint_repeats_its_choice(table, delays, monkeypatch):
    """Though the same unit was measured in the meantime, and another backend, which keeps other tensors, is faster."""
    choose = dispatch.choose

    def as_on_a_gpu(device, dtype, requested, unavailable, times=None, shared=False):
        if times or requested != "auto":
            return choose(device, dtype, requested, unavailable, times, shared)
        return dispatch.Choice(dispatch.EAGER, "not measured yet")

    monkeypatch.setattr(dispatch, "choose", as_on_a_gpu)
    x = X.clone().requires_grad_()
    with measuring("always"), resnet_fused.modules.record() as records:
        y = _block(1)(checkpoint(_block(), x, use_reentrant=False))
        y.sum().backward()
    assert [record.backend for record in records if record.reason != "asked for"] == [None, "library", None]


def test_the_unit_s_gpu_is_waited_for(monkeypatch, delays):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device = torch.device("cuda:1")
    assert dispatch._timed(device, ("eager",), lambda: None) == {"eager": 9.0} and waited == [device]


def test_sizes_that_are_symbols(table, delays):
    """Nothing is looked up for them."""
    table.record("machine", "unit", {"cpu": 1.0})
    block = _block().eval()
    graph = make_fx(lambda x: block(x), tracing_mode="symbolic", _allow_non_fake_inputs=True)(X)
    torch.testing.assert_close(graph(X), block(X), rtol=0, atol=0)


def test_meta_and_compiled_are_not_measured(table, delays):
    with measuring("always"):
        _block().to("meta")(X.to("meta"))
        torch.compile(_block(), backend="eager")(X)
    assert not delays["calls"]


@pytest.mark.parametrize(
    "mode", ["inference", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("training", "frozen"))]
)
def test_no_trace(mode, table):
    """Weights, buffers, gradients, hooks and the random state; and the numbers of the step are those of its backend."""
    torch.manual_seed(0)
    model = resnet_fused.fuse(torchvision.models.resnet18(num_classes=5)).train(mode == "training")
    if mode == "inference":
        model.requires_grad_(False)
    x = torch.randn(2, 3, 32, 32)
    twin, fired = copy.deepcopy(model), []
    for block in (model.layer1[0], twin.layer1[0]):
        block.register_forward_hook(lambda *_: fired.append("forward"))
        if mode != "inference":
            block.conv1.weight.register_hook(lambda grad: fired.append("gradient"))
    for module in (model, twin):
        with measuring("always" if module is model else "never"):
            out = module(x)
            random = torch.get_rng_state()
            if mode != "inference":
                out.square().sum().backward()
    assert fired == (["forward"] if mode == "inference" else ["forward", "gradient"]) * 2
    assert torch.equal(torch.get_rng_state(), random)
    assert len(next(iter(table.machines.values()))) == 8  # a stem and 8 blocks, two of which are alike
    for name, value in model.state_dict().items():
        # The fastest backend may round otherwise than the default.
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)
    assert torch.equal(model.bn1.num_batches_tracked, twin.bn1.num_batches_tracked)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (mode == "inference"), name


def test_tune_and_explain(table, delays):
    torch.manual_seed(0)
    model = resnet_fused.fuse(torchvision.models.resnet18(num_classes=5))
    x, seen = torch.randn(2, 3, 32, 32), []
    before = copy.deepcopy(model.state_dict())
    explanation = resnet_fused.tune(model, x, notify=lambda record: seen.append(record.module))
    assert len(seen) == len(explanation.rows) == 9
    assert {row.backend for row in explanation.rows} == {"library"}
    assert all(row.reason == "measured: library 1 ms, cpu 5 ms, eager 9 ms" for row in explanation.rows)
    assert explanation == resnet_fused.explain(model, x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():  # another problem, not measured
        assert {row.backend for row in resnet_fused.explain(model, x).rows} == {"cpu"}
    count = len(delays["calls"])
    resnet_fused.tune(model, x)
    assert len(delays["calls"]) == count
    resnet_fused.tune(model, x, again=True)
    assert len(delays["calls"]) == 2 * count


def test_measuring_times_in_alternating_rounds(monkeypatch):
    monkeypatch.setattr(measurement, "SECONDS", 0.0)
    order = []

    def sleeper(name, seconds):
        def call():
            order.append(name)
            time.sleep(seconds)

        return call

    times = measurement.measure({"slow": sleeper("slow", 0.02), "fast": sleeper("fast", 0.002)}, lambda: None)
    rounds = measurement.WARM_UP + measurement.MIN_ROUNDS
    assert order == ["slow", "fast"] * rounds
    assert times["slow"] >= 20 and 2 <= times["fast"] < times["slow"]


def test_a_candidate_without_memory_is_left_out():
    def greedy():
        raise torch.OutOfMemoryError("no memory")

    times = measurement.measure({"greedy": greedy, "modest": lambda: None}, lambda: None)
    assert list(times) == ["modest"]


def test_a_candidate_that_fails_is_left_out_with_a_warning_and_eager_s_error_is_the_callers():
    def broken():
        raise RuntimeError("no image for this device")

    with pytest.warns(UserWarning, match="triton failed on a unit .*no image for this device") as warned:
        times = measurement.measure({"triton": broken, "eager": lambda: None}, lambda: None)
    assert list(times) == ["eager"] and len(warned) == 1
    with pytest.raises(RuntimeError, match="no image"):
        measurement.measure({"cpu": lambda: None, "eager": broken}, lambda: None)


@pytest.mark.slow
def test_the_mode_comes_from_the_environment():
    command = [sys.executable, "-c", "import resnet_fused"]
    wrong = subprocess.run(command, env={"RESNET_FUSED_MEASURE": "yes", "PATH": ""}, capture_output=True, text=True)
    assert wrong.returncode and "RESNET_FUSED_MEASURE must be auto, always or never, but got 'yes'" in wrong.stderr
    with pytest.raises(ValueError, match="unknown mode 'often'"):
        with measuring("often"):
            pass


def test_situation_is_another_when_choices_may_be(table):
    x = torch.ones(1)
    assert dispatch.situation(x) == dispatch.situation(torch.zeros(2, 3))
    seen = [dispatch.situation(x)]
    with resnet_fused.backend("reference"):
        seen.append(dispatch.situation(x))
    table.record("machine", "problem", {"cpu": 1.0})
    seen.append(dispatch.situation(x))
    resnet_fused.set_winograd(False)
    seen.append(dispatch.situation(x))
    resnet_fused.set_winograd(True)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    seen.append(dispatch.situation(x))
    torch.set_num_threads(threads)
    with torch.autograd.graph.save_on_cpu():
        seen.append(dispatch.situation(x))
    assert dispatch.situation(x) == seen[2]
    with dispatch.measuring("never"):
        seen.append(dispatch.situation(x))
    seen.append(dispatch.situation(x))
    assert len(set(seen)) == len(seen) == 8
