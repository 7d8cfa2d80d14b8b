"""Loads the compiled extensions, or says why they are not there.

Importing this module registers torch.ops.resnet_fused.* if the CPU extension was built for the torch that is running.
The package works without the extensions: the reference backend needs none.
"""

import importlib
import os
from pathlib import Path

import torch

_REBUILD = "pip install --no-build-isolation --force-reinstall --no-deps -e ."


def _load(name):
    """The extension module resnet_fused.<name>; ImportError in one sentence where it cannot be."""
    folder = Path(__file__).parent
    if not any(folder.glob(f"{name}.*.so")):
        raise ModuleNotFoundError(
            f"the extension resnet_fused.{name} is not built: run `{_REBUILD}` in the source folder"
        )
    record = folder / f"{name}.torch-version"
    built = record.read_text().strip() if record.exists() else "an unknown version"
    # Checked before loading: symbols of another torch are missing or, worse, different.
    if built != torch.__version__:
        raise ImportError(
            f"the extension resnet_fused.{name} was built for torch {built} but torch {torch.__version__} is running: "
            f"rebuild it with `{_REBUILD}`"
        )
    return importlib.import_module(f"resnet_fused.{name}")


def _try_load(name, errors=ModuleNotFoundError):
    """→ the extension, why there is none."""
    try:
        return _load(name), None
    except errors as error:
        return None, str(error)


_cpu, _cpu_reason = _try_load("_cpu")
_cuda, _cuda_reason = _try_load("_cuda", ImportError)  # whoever has no GPU, or no nvcc any more, needs none
if _cpu is not None:
    _cpu.isa()  # an impossible RESNET_FUSED_ISA is an error now, not in the first operator


def cpu_unavailable_reason() -> str | None:
    """Why there are no CPU kernels, in one sentence, or None if there are."""
    return _cpu_reason


def cuda_unavailable_reason() -> str | None:
    """Why the CUDA extension is not there, in one sentence, or None if it is (a GPU may still be missing)."""
    return _cuda_reason


def cpu_facts() -> dict:
    """Of the CPU extension: compiler, flags, torch version, ISAs compiled, supported here and in use; {} without it."""
    return _cpu.facts() if _cpu is not None else {}


def cuda_facts() -> dict:
    """Of the CUDA extension: torch and nvcc version, architectures; {} without it."""
    return _cuda.facts() if _cuda is not None else {}


def set_winograd(enabled: bool) -> None:
    """Allows Winograd's algorithm in the CPU extension, if there is one."""
    if _cpu is not None:
        _cpu.set_winograd(enabled)


def winograd() -> bool:
    """Whether the CPU extension may use Winograd's algorithm."""
    return _cpu is not None and _cpu.winograd()
