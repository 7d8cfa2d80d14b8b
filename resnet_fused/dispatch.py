"""Which backend runs a problem: a pure function of what is asked and what is there, always with a reason."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

import torch

from resnet_fused import _ext, backends

AUTO = "auto"
EAGER = "eager"
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class BackendUnavailable(RuntimeError):
    """A backend was asked for by name and cannot serve; the message says why and what would help."""


class Choice(NamedTuple):
    backend: str  # a name of backends.NAMES, or "eager": the module's own unfused forward
    reason: str


def choose(device: str, dtype: torch.dtype, requested: str, unavailable: dict[str, str | None]) -> Choice:
    """The backend for activations of `dtype` on `device`; `unavailable` as backends.available() gives it.

    The automatic choice never raises, and runs eager PyTorch where no kernels of ours could be faster. Raises
    BackendUnavailable where a backend asked for by name cannot serve, ValueError for a name that is none.
    """
    if requested == AUTO:
        reason = _why_cannot("cpu", device, dtype, unavailable)
        if reason is None:
            return Choice("cpu", f"SIMD kernels for {device} {_name(dtype)}")
        if device == "cuda" and _why_cannot("cuda", device, dtype, unavailable) is None:
            reason = "the CUDA kernels were not measured against eager PyTorch yet: ask for them by backend('cuda')"
        return Choice(EAGER, reason)
    if requested == EAGER:
        return Choice(EAGER, "asked for")
    check_name(requested)
    if requested == "reference" or requested not in unavailable:
        return Choice(requested, "asked for")
    reason = _why_cannot(requested, device, dtype, unavailable)
    if reason is not None:
        raise BackendUnavailable(f"backend {requested!r} cannot serve: {reason}")
    return Choice(requested, "asked for")


def check_name(name: str) -> None:
    names = (AUTO, EAGER, *backends.names())
    if name not in names:
        raise ValueError(f"unknown backend {name!r}; expected one of {', '.join(names)}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _why_cannot(backend: str, device: str, dtype: torch.dtype, unavailable: dict[str, str | None]) -> str | None:
    """Of the compiled backends: Triton's serves CUDA, the others the device of their name."""
    if unavailable[backend] is not None:
        return unavailable[backend]
    if device != ("cuda" if backend == "triton" else backend):
        return f"backend {backend!r} has no kernels for device {device!r}"
    if dtype not in DTYPES:
        return f"the {backend.upper()} kernels take {', '.join(map(_name, DTYPES))}, not {_name(dtype)}"
    return None


_requested = os.environ.get("RESNET_FUSED_BACKEND", AUTO)
_unavailable = backends.available()


def choose_for(x: torch.Tensor) -> Choice:
    """choose() for a tensor, with the backend asked for by `backend(...)` or RESNET_FUSED_BACKEND."""
    return choose(x.device.type, x.dtype, _requested, _unavailable)


@contextlib.contextmanager
def backend(name: str):
    """Runs fused modules on the named backend: "auto", "eager", "reference", "cpu", "triton" or "cuda".

    Holds for the whole process while the context is open. A backend that cannot serve raises BackendUnavailable
    when a module is called; an unknown name raises ValueError at once.
    """
    global _requested
    check_name(name)
    previous, _requested = _requested, name
    try:
        yield
    finally:
        _requested = previous


def set_winograd(enabled: bool) -> None:
    """Whether the CPU engine may use Winograd's algorithm for 3×3 convolutions of stride 1; it may at first.

    y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ x B)]A computes 4×4 outputs with 36 multiplications instead of 144, here at the points 0,
    ±5/8, ±3/2, ∞. Its float32 rounding errors are up to 8 times those of the direct sum, which is what runs without.
    Holds for the whole process. Lavin & Gray 2016 (Fast Algorithms for Convolutional Neural Networks), section 4.1.
    """
    _ext.set_winograd(enabled)
