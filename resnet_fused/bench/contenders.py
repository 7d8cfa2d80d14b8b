"""Who races: how each contender turns the unfused model into what it runs."""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Callable, Sequence

import torch
from torch import nn

from . import job as jobs
from .job import MODES, Job

DEFAULT = {
    "train": ("nchw", "channels_last", "compile", "fused"),
    "infer": ("nchw", "channels_last", "compile", "freeze", "onnxruntime", "openvino", "ncnn", "mnn", "fused"),
}
SUBJECT = "fused"  # whose speed-up over the others is asked for
INSTALL_PEERS = "pip install 'resnet_fused[peers]'"


@dataclass(frozen=True)
class Contender:
    """``prepare(model, job)`` gets the model, weights loaded, in ``memory_format``, and returns what is called.

    ``packages`` are those it cannot race without, named as they are imported, which is also how they are installed.
    """

    name: str
    label: str
    memory_format: torch.memory_format
    prepare: Callable[[nn.Module, Job], nn.Module]
    modes: Sequence[str] = MODES
    packages: Sequence[str] = ()
    compiles: bool = False  # in its first step


def _eager(model: nn.Module, job: Job) -> nn.Module:
    return model


def _compile(model: nn.Module, job: Job) -> nn.Module:
    return torch.compile(model)  # type: ignore[return-value]


def _freeze(model: nn.Module, job: Job) -> nn.Module:
    import torch._inductor.config

    # Not through torch.compile's options: tracing asks for it as well, and does not see those.
    torch._inductor.config.freezing = True  # type: ignore[attr-defined]
    return torch.compile(model)  # type: ignore[return-value]


def _fused(model: nn.Module, job: Job) -> nn.Module:
    import resnet_fused

    return jobs.fuse(model) if job.model in jobs.CIFAR else resnet_fused.fuse(model)


def _engine(name: str, label: str, *packages: str) -> Contender:
    """A peer out of ``peers``, where its module has its name."""

    def prepare(model: nn.Module, job: Job) -> nn.Module:
        return importlib.import_module(f".peers.{name}", __package__).prepare(model, job)

    return Contender(name, label, torch.contiguous_format, prepare, ("infer",), packages)


_BUILT_IN = {
    contender.name: contender
    for contender in (
        Contender("nchw", "eager NCHW", torch.contiguous_format, _eager),
        Contender("channels_last", "eager channels_last", torch.channels_last, _eager),
        Contender("compile", "torch.compile", torch.channels_last, _compile, compiles=True),
        Contender("compile_nchw", "torch.compile NCHW", torch.contiguous_format, _compile, compiles=True),
        Contender("freeze", "torch.compile frozen", torch.channels_last, _freeze, ("infer",), compiles=True),
        _engine("onnxruntime", "ONNX Runtime", "onnxruntime", "onnx", "onnxscript"),
        _engine("openvino", "OpenVINO", "openvino", "onnx", "onnxscript"),
        _engine("ncnn", "ncnn, image by image", "ncnn"),
        _engine("mnn", "MNN", "MNN", "onnx", "onnxscript"),
        Contender("fused", "fused", torch.channels_last, _fused),
    )
}


def name_of(spec: str) -> str:
    """The name under which a contender given as ``NAME`` or ``NAME=module:function`` races."""
    return spec.split("=", 1)[0]


def built_in(spec: str) -> Contender | None:
    """The built-in contender that ``spec`` names, if it is one."""
    return _BUILT_IN.get(spec)


def label_of(spec: str) -> str:
    """What tables and charts call the contender given as ``spec``."""
    known = built_in(spec)
    return known.label if known else name_of(spec)


def compiles(spec: str) -> bool:
    """Whether the first step is compilation."""
    known = built_in(spec)
    return known is not None and known.compiles


def packages_of(spec: str) -> Sequence[str]:
    """The packages, torch aside, that the contender's numbers depend on."""
    known = built_in(spec)
    return known.packages if known else ()


def why_not(spec: str, mode: str) -> str | None:
    """Why a contender does not race in ``mode`` on this machine, to follow its name in a sentence."""
    known = built_in(spec)
    if known is None:
        return None
    if mode not in known.modes:
        return f"races only in {' and '.join(known.modes)}"
    missing = [package for package in known.packages if importlib.util.find_spec(package) is None]
    return f"needs {', '.join(missing)}, not installed: {INSTALL_PEERS}" if missing else None


def racing(specs: Sequence[str], mode: str) -> list[str]:
    """Those of ``specs`` that race in ``mode`` on this machine."""
    return [spec for spec in specs if why_not(spec, mode) is None]


def resolve(spec: str) -> Contender:
    """A built-in contender by name, or your own from ``NAME=module:function``.

    The function gets ``(model, job)`` and returns the module to run; it races in channels_last. Under the name
    ``fused`` it takes the fused contender's place.
    """
    known = built_in(spec)
    if known is not None:
        return known
    name, _, target = spec.partition("=")
    if not target:
        raise ValueError(f"unknown contender {name!r}: choose among {', '.join(_BUILT_IN)} or NAME=module:function")
    module, _, function = target.partition(":")
    if not name or not module or module.startswith(".") or not function:
        raise ValueError(f"contender {spec!r} should read NAME=module:function")
    prepare = getattr(importlib.import_module(module), function)
    return Contender(name, name, torch.channels_last, prepare)


def chosen_backend(job: Job) -> AbstractContextManager:
    """The backend the job asks for, as a context; ``auto`` leaves the package's own choice alone."""
    if job.backend == "auto":
        return nullcontext()
    import resnet_fused

    return resnet_fused.backend(job.backend)
