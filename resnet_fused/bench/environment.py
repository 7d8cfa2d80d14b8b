"""What a result depends on: versions, processor, instruction set, threads. Never a host name or a path."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from typing import Any, Iterable

import torch

from ..dispatch.machine import cpu_model


def package_version(name: str) -> str | None:
    """Version of an installed distribution, or ``None``."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def compiler_version() -> str | None:
    """First line of ``c++ --version`` (or $CXX, g++, clang++), or ``None`` without a compiler."""
    for candidate in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        path = shutil.which(candidate) if candidate else None
        if path:
            run = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            if run.returncode == 0 and run.stdout:
                return run.stdout.splitlines()[0]
    return None


def extension_facts(which: str) -> dict[str, Any]:
    """What the compiled ``cpu`` or ``cuda`` extension says of itself; ``unavailable`` gives the reason if it cannot."""
    from resnet_fused import _ext

    reason = getattr(_ext, f"{which}_unavailable_reason")()
    try:
        facts = dict(getattr(_ext, f"{which}_facts")() or {})
    except Exception as error:  # an extension that does not load has no facts; the reason says why
        return {"unavailable": reason or str(error)}
    return {**facts, "unavailable": reason} if reason else facts


def versions(packages: Iterable[str] = ()) -> dict[str, str | None]:
    """Versions of the package, of what its speed depends on, and of further ``packages``."""
    return {
        "resnet_fused": package_version("resnet-fused"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": package_version("torchvision"),
        "triton": package_version("triton"),
        "cuda": torch.version.cuda,
        "compiler": compiler_version(),
        **{package: package_version(package) for package in packages},
    }


def cpu_count() -> int:
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(threads: int | None = None, packages: Iterable[str] = ()) -> dict[str, Any]:
    """Everything above in one JSON-ready dictionary; ``packages`` are further ones whose versions matter."""
    return {
        "versions": versions(packages),
        "cpu_model": cpu_model(),
        "cpus": cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "cpu_extension": extension_facts("cpu"),
    }
