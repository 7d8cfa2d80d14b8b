"""The device and the versions that results depend on; never a host name. Imports nothing of the package."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import shutil
import subprocess
from typing import Any

import torch

from .part import Report
from .plan import Settings
from .process import ROOT

SOURCES = (".py", ".cpp", ".cu", ".h", ".cuh")


def run(settings: Settings, report: Report) -> None:
    report.result(emulated_facts() if settings.emulated else device_facts())


def versions() -> dict[str, str | None]:
    """Of the kernels, and of what they are built and compared with."""
    return {
        "sources": sources(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()) if torch.cuda.is_available() else None,
        "triton": _version("triton"),
        "torchvision": _version("torchvision"),
        "nvcc": ask("nvcc", "--version", pattern=r"release ([\d.]+)"),
        "driver": ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", pattern=r"([\d.]+)"),
    }


def sources() -> str:
    """A digest of the package, its kernels and their build, whether they are committed or not."""
    digest = hashlib.sha256()
    files = [path for folder in ("csrc", "resnet_fused") for path in (ROOT / folder).rglob("*")]
    for path in sorted([ROOT / "setup.py", *files]):
        if path.suffix in SOURCES:
            text = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT)} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:12]


def device_facts() -> dict[str, Any]:
    """Of the first device; raises where there is none."""
    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device here: PyTorch finds no GPU it can use")
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "devices": torch.cuda.device_count(),
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "versions": versions(),
    }


def emulated_facts() -> dict[str, Any]:
    """The same, of the emulator."""
    return {"name": "emulated", "capability": "8.0", "devices": 1, "memory_bytes": 0, "multiprocessors": 1,
            "l2_bytes": None, "versions": versions()}  # fmt: skip


def ask(program: str, *arguments: str, pattern: str) -> str | None:
    """What `pattern` captures first in a program's answer, or None."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        answer = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(pattern, answer.stdout)
    return found[1] if found and answer.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
