"""What a measured time depends on besides the problem: processor or GPU, versions, threads, switches."""

from __future__ import annotations

import functools
import importlib.metadata
import platform

import torch

from resnet_fused import _ext


def cpu_model() -> str:
    """The processor's marketing name (Linux: /proc/cpuinfo)."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    return platform.machine()


def settings(device: torch.device) -> tuple:
    """Of this moment, cheap to ask for at every call."""
    if device.type == "cuda":
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        return ("cuda", device.index, cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark)
    return ("cpu", torch.get_num_threads(), _ext.winograd())


@functools.cache
def describe(current: tuple) -> str:
    """The machine with such settings, in words."""
    versions = f"torch {torch.__version__}, resnet_fused {_version('resnet_fused')}"
    if current[0] == "cuda":
        _, index, *switches = current
        words = [name for name, on in zip(("TF32 convolutions", "TF32 products", "cudnn.benchmark"), switches) if on]
        versions += f", CUDA {torch.version.cuda}, triton {_version('triton')}"
        return ", ".join((torch.cuda.get_device_name(index), versions, *words))
    _, threads, winograd = current
    isa = _ext.cpu_facts().get("isa", "no kernels")
    return f"{cpu_model()} with {isa}, {threads} threads, {versions}" + ("" if winograd else ", without Winograd")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
