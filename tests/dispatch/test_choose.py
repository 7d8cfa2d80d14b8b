"""The choice of a backend, as a pure function and as the context manager that asks for one."""

import pytest
import torch

import resnet_fused
from resnet_fused import backends, dispatch
from resnet_fused.dispatch import BackendUnavailable, Choice, choose
from resnet_fused.dispatch.choose import candidates

NO_TRITON, NO_CUDA = "no triton here", "no cuda here"
BUILT = {"reference": None, "cpu": None, "triton": NO_TRITON, "cuda": NO_CUDA, "library": None}
NOT_BUILT = {**BUILT, "cpu": "the extension is not built: build it", "library": "the extension is not built: build it"}


@pytest.mark.parametrize("dtype", dispatch.DTYPES)
def test_auto_takes_the_cpu_kernels(dtype):
    name = str(dtype).removeprefix("torch.")
    assert choose("cpu", dtype, "auto", BUILT) == Choice("cpu", f"SIMD kernels for cpu {name}")


@pytest.mark.parametrize(
    "device, dtype, unavailable, words",
    [
        ("cpu", torch.float8_e5m2, BUILT, "take float32, float64, bfloat16, float16, not float8_e5m2"),
        ("cpu", torch.complex64, BUILT, "not complex64"),
        ("cpu", torch.float32, NOT_BUILT, "the extension is not built: build it"),
        ("mps", torch.float32, BUILT, "'mps'"),
        ("meta", torch.float32, BUILT, "'meta'"),
    ],
)
def test_auto_runs_eager_and_says_why(device, dtype, unavailable, words):
    choice = choose(device, dtype, "auto", unavailable)
    assert choice.backend == "eager"
    assert words in choice.reason
    with pytest.raises(BackendUnavailable, match="backend 'cpu' cannot serve: ") as error:
        choose(device, dtype, "cpu", unavailable)
    assert words in str(error.value)


@pytest.mark.parametrize("requested", ["eager", "reference"])
@pytest.mark.parametrize("device, dtype", [("cpu", torch.float32), ("cuda", torch.float16), ("mps", torch.float32)])
def test_what_serves_everything(requested, device, dtype):
    assert choose(device, dtype, requested, NOT_BUILT) == Choice(requested, "asked for")


def test_cpu_asked_for():
    assert choose("cpu", torch.bfloat16, "cpu", BUILT) == Choice("cpu", "asked for")


@pytest.mark.parametrize("requested, reason", [("triton", NO_TRITON), ("cuda", NO_CUDA)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_gpu_backends_that_are_not_there(requested, reason, device):
    with pytest.raises(BackendUnavailable, match=f"backend '{requested}' cannot serve: {reason}"):
        choose(device, torch.float32, requested, BUILT)


def test_what_is_shared_with_other_processes_is_chosen_by_rule():
    """On a GPU, where measurements differ between processes: PyTorch's convolutions with our passes around them."""
    built = {**BUILT, "cuda": None, "triton": None}
    assert choose("cuda", torch.float16, "auto", built, shared=True).backend == "library"
    assert choose("cuda", torch.float16, "auto", built).backend == "eager"
    assert choose("cuda", torch.float16, "auto", BUILT, shared=True).backend == "eager"
    alone = choose("cuda", torch.float16, "auto", {**BUILT, "triton": None}, shared=True)
    assert alone.backend == "eager" and "measurements may differ" in alone.reason
    assert choose("cpu", torch.float32, "auto", BUILT, shared=True).backend == "cpu"
    assert choose("cuda", torch.float16, "triton", built, shared=True) == Choice("triton", "asked for")


def test_cuda_kernels_run_where_asked_for():
    built = {**BUILT, "cuda": None}
    assert choose("cuda", torch.float16, "cuda", built) == Choice("cuda", "asked for")
    choice = choose("cuda", torch.float16, "auto", built)
    assert choice == Choice("eager", "not measured yet on this GPU")
    for device, dtype, words in (("cpu", torch.float32, "no kernels for device 'cpu'"), ("cuda", torch.int8, "not int8")):
        with pytest.raises(BackendUnavailable, match=words):
            choose(device, dtype, "cuda", built)


def test_what_is_measured():
    assert candidates("cpu", torch.float32, BUILT) == ("cpu", "library", "eager")
    assert candidates("cuda", torch.float16, {**BUILT, "cuda": None}) == ("cuda", "library", "eager")
    both = {**BUILT, "cuda": None, "triton": None}
    assert candidates("cuda", torch.float16, both) == ("cuda", "triton", "library", "eager")
    assert candidates("cuda", torch.float16, both, first_use=True) == ("cuda", "library", "eager")
    only_triton = {**BUILT, "triton": None}
    assert candidates("cuda", torch.float16, only_triton, first_use=True) == ("triton", "eager")
    assert candidates("cpu", torch.int8, BUILT) == candidates("mps", torch.float32, BUILT) == ()


@pytest.mark.parametrize(
    "times, backend",
    [
        ({"cpu": 2.0, "library": 3.0, "eager": 4.0}, "cpu"),
        ({"cpu": 2.0, "library": 3.0, "eager": 1.0}, "eager"),
        ({"cpu": 2.0, "library": 1.98, "eager": 4.0}, "cpu"),  # not faster by the margin
        ({"cpu": 2.0, "library": 1.9, "eager": 4.0}, "library"),
        ({"library": 3.0, "eager": 4.0}, "library"),  # the default ran out of memory
        ({"cuda": 0.1, "cpu": 2.0}, "cpu"),  # what cannot serve does not count
    ],
)
def test_the_fastest_measured_runs(times, backend):
    choice = choose("cpu", torch.float32, "auto", BUILT, times)
    assert choice.backend == backend
    assert choice.reason.startswith("measured: ") and f"{backend} {times[backend]:.3g} ms" in choice.reason
    assert choose("cpu", torch.float32, "cpu", BUILT, times) == Choice("cpu", "asked for")


def test_a_gpu_runs_what_was_measured():
    built = {**BUILT, "cuda": None}
    times = {"cuda": 1.0, "library": 1.5, "eager": 2.0}
    assert choose("cuda", torch.float16, "auto", built, times).backend == "cuda"
    assert choose("cuda", torch.float16, "auto", built, {**times, "eager": 0.9}).backend == "eager"


def test_a_registered_backend_runs_where_asked_for(monkeypatch):
    monkeypatch.setattr(backends, "_registered", dict(backends._registered))
    backends.register("mine", backends.reference)
    assert backends.get("mine") is backends.reference
    assert choose("cpu", torch.float32, "mine", BUILT) == Choice("mine", "asked for")


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown backend 'gpu'; expected one of auto, eager, reference, cpu"):
        choose("cpu", torch.float32, "gpu", BUILT)
    with pytest.raises(ValueError, match="unknown backend 'gpu'"):
        with resnet_fused.backend("gpu"):
            pytest.fail("the context was entered")


def test_every_unavailable_backend_says_what_would_help():
    reasons = backends.available()
    assert set(reasons) == set(backends.NAMES)
    assert reasons["reference"] is None
    for reason in reasons.values():
        assert reason is None or len(reason.split()) > 5


def _requested():
    return dispatch.choose_for(torch.empty(1, 1, 1, 1))


def test_the_context_restores():
    outside = _requested()
    with resnet_fused.backend("reference"):
        assert _requested().backend == "reference"
        with resnet_fused.backend("eager"):
            assert _requested().backend == "eager"
        assert _requested().backend == "reference"
        with pytest.raises(KeyError):
            with resnet_fused.backend("cpu"):
                raise KeyError
        assert _requested().backend == "reference"
    assert _requested() == outside


@pytest.mark.parametrize("name", ["cpu", "triton", "cuda"])
def test_forcing_what_cannot_serve_raises(name):
    module = resnet_fused.ConvBNAct(3, 4).to(torch.float8_e5m2)
    with resnet_fused.backend(name), pytest.raises(BackendUnavailable, match="cannot serve"):
        module(torch.randn(2, 3, 5, 5).to(torch.float8_e5m2))


def test_modules_run_what_was_asked_for():
    module = resnet_fused.ConvBNAct(3, 4)
    x = torch.randn(2, 3, 5, 5)
    for name in ("reference", "cpu", "library", "eager"):
        with resnet_fused.modules.record() as records, resnet_fused.backend(name):
            module(x)
        assert [(r.module, r.backend) for r in records] == [(module, None if name == "eager" else name)]
