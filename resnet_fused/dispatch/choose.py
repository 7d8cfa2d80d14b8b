"""The choice of a backend: a pure function of what is asked, what is there and what was measured, with a reason."""

from __future__ import annotations

from typing import Mapping, NamedTuple

import torch

from resnet_fused import backends

AUTO = "auto"
EAGER = "eager"
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
OWN = {"cpu": ("cpu", "library"), "cuda": ("cuda", "triton", "library")}  # a device's backends, the preferred one first
MARGIN = 0.03  # a measured time has to be lower by this part to take a unit from the choice made without measuring


class BackendUnavailable(RuntimeError):
    """A backend was asked for by name and cannot serve; the message says why and what would help."""


class Choice(NamedTuple):
    backend: str  # a name of backends.names(), or "eager": the module's own unfused forward
    reason: str


def choose(
    device: str,
    dtype: torch.dtype,
    requested: str,
    unavailable: Mapping[str, str | None],
    times: Mapping[str, float] | None = None,
    shared: bool = False,
) -> Choice:
    """The backend for activations of `dtype` on `device`; `unavailable` as backends.available() gives it.

    `times`: milliseconds of each candidate, where the unit was measured; the fastest runs. Without, a CPU runs its
    kernels, whose cost model chooses among their algorithms, and a GPU eager PyTorch; or where statistics are `shared`
    with other processes, PyTorch's convolutions with our passes around them. The automatic choice never raises.
    Raises BackendUnavailable where a backend asked for by name cannot serve, ValueError for a name that is none.
    """
    if requested == AUTO:
        return _automatic(device, dtype, unavailable, times, shared)
    if requested == EAGER:
        return Choice(EAGER, "asked for")
    check_name(requested)
    reason = why_cannot(requested, device, dtype, unavailable)
    if reason is not None:
        raise BackendUnavailable(f"backend {requested!r} cannot serve: {reason}")
    return Choice(requested, "asked for")


def candidates(
    device: str, dtype: torch.dtype, unavailable: Mapping[str, str | None], first_use: bool = False
) -> tuple[str, ...]:
    """What a measurement compares: all that can serve, eager PyTorch last.

    At first use, unasked, Triton's kernels take part only where there are no CUDA kernels: compiling them takes long.
    """
    own = [name for name in OWN.get(device, ()) if why_cannot(name, device, dtype, unavailable) is None]
    if first_use and "cuda" in own and "triton" in own:
        own.remove("triton")
    return (*own, EAGER) if own else ()


def check_name(name: str) -> None:
    names = (AUTO, EAGER, *backends.names())
    if name not in names:
        raise ValueError(f"unknown backend {name!r}; expected one of {', '.join(names)}")


def why_cannot(backend: str, device: str, dtype: torch.dtype, unavailable: Mapping[str, str | None]) -> str | None:
    """Why a backend cannot serve, in words, or None; what was registered from outside serves everything."""
    if backend == "reference" or backend not in unavailable:
        return None
    if unavailable[backend] is not None:
        return unavailable[backend]
    if backend not in OWN.get(device, ()):
        return f"backend {backend!r} has no kernels for device {device!r}"
    if backend == "library" and unavailable[device] is not None:
        return unavailable[device]
    if dtype not in DTYPES:
        kernels = {"triton": "Triton"}.get(backend, device.upper())
        return f"the {kernels} kernels take {', '.join(map(_name, DTYPES))}, not {_name(dtype)}"
    return None


def _automatic(device, dtype, unavailable, times, shared) -> Choice:
    reason = why_cannot("cpu", device, dtype, unavailable)
    if reason is None:
        default = Choice("cpu", f"SIMD kernels for {device} {_name(dtype)}")
    elif shared and candidates(device, dtype, unavailable):
        served = why_cannot("library", device, dtype, unavailable) is None
        reason = "statistics are shared with other processes, where measurements may differ"
        default = Choice("library" if served else EAGER, reason)
    elif device == "cuda" and candidates(device, dtype, unavailable):
        default = Choice(EAGER, "not measured yet on this GPU")
    else:
        default = Choice(EAGER, reason)
    possible = candidates(device, dtype, unavailable)
    measured = {name: time for name, time in (times or {}).items() if name in possible}
    if not measured:
        return default
    fastest = min(measured, key=measured.__getitem__)
    if default.backend in measured and measured[fastest] > (1 - MARGIN) * measured[default.backend]:
        fastest = default.backend
    order = sorted(measured.items(), key=lambda item: item[1])
    return Choice(fastest, "measured: " + ", ".join(f"{name} {time:.3g} ms" for name, time in order))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
