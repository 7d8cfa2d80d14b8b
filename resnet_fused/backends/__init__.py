"""The backends, all with the operators of resnet_fused.ops under the same names and signatures."""

from __future__ import annotations

import importlib
import importlib.util

import torch

from resnet_fused import _ext
from resnet_fused.backends import reference
from resnet_fused.backends.traceable import Traceable

NAMES = ("reference", "cpu", "triton", "cuda", "library")


def available() -> dict[str, str | None]:
    """Each backend's name with None where it can be used, else one sentence: why not, and how to get it."""
    return {
        "reference": None,
        "cpu": _ext.cpu_unavailable_reason(),
        "triton": _triton_unavailable_reason(),
        "cuda": _ext.cuda_unavailable_reason()
        or (None if torch.cuda.is_available() else "The CUDA extension is built, but PyTorch finds no GPU it can use here."),
        "library": _ext.cpu_unavailable_reason(),
    }


def _triton_unavailable_reason() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: run `pip install triton`."
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return "Triton is installed, but PyTorch finds no NVIDIA GPU it can use here."
    return None


def _triton():
    """Imported when it is used: that takes longer than all of this package."""
    return importlib.import_module("resnet_fused.backends.triton")


_registered = {"reference": reference, "triton": Traceable("resnet_fused_triton", _triton)}


def register(name: str, operators) -> None:
    """Adds a backend that runs when asked for by name: an object with all the operators, such as a module, or a
    Traceable."""
    _registered[name] = operators


def names() -> tuple[str, ...]:
    return (*NAMES, *(name for name in _registered if name not in NAMES))


def get(name: str):
    """The namespace that holds a usable backend's operators; "library" convolves by PyTorch's libraries, with our passes
    around them."""
    operators = _registered.get(name)
    if operators is None:
        return torch.ops.resnet_fused_library if name == "library" else torch.ops.resnet_fused
    return operators.operators() if isinstance(operators, Traceable) else operators
