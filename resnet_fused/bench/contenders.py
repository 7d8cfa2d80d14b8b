"""Who races: how each contender turns torchvision's model into what it runs."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Callable

import torch
from torch import nn

from .job import Job

DEFAULT = ("nchw", "channels_last", "compile", "fused")
SUBJECT = "fused"  # whose speed-up over the others is asked for
COMPILED = "compile"  # whose first step is compilation


@dataclass(frozen=True)
class Contender:
    """``prepare(model, job)`` gets the model, weights loaded, in ``memory_format``, and returns what is called."""

    name: str
    label: str
    memory_format: torch.memory_format
    prepare: Callable[[nn.Module, Job], nn.Module]


def _eager(model: nn.Module, job: Job) -> nn.Module:
    return model


def _compile(model: nn.Module, job: Job) -> nn.Module:
    return torch.compile(model)  # type: ignore[return-value]


def _fused(model: nn.Module, job: Job) -> nn.Module:
    import resnet_fused

    return resnet_fused.fuse(model)


_BUILT_IN = {
    contender.name: contender
    for contender in (
        Contender("nchw", "eager NCHW", torch.contiguous_format, _eager),
        Contender("channels_last", "eager channels_last", torch.channels_last, _eager),
        Contender("compile", "torch.compile", torch.channels_last, _compile),
        Contender("fused", "fused", torch.channels_last, _fused),
    )
}


def name_of(spec: str) -> str:
    """The name under which a contender given as ``NAME`` or ``NAME=module:function`` races."""
    return spec.split("=", 1)[0]


def label_of(spec: str) -> str:
    """What tables and charts call the contender given as ``spec``."""
    name = name_of(spec)
    return name if "=" in spec or name not in _BUILT_IN else _BUILT_IN[name].label


def resolve(spec: str) -> Contender:
    """A built-in contender by name, or your own from ``NAME=module:function``.

    The function gets ``(model, job)`` and returns the module to run; it races in channels_last. Under the name
    ``fused`` it takes the fused contender's place.
    """
    name, _, target = spec.partition("=")
    if not target:
        if name not in _BUILT_IN:
            raise ValueError(f"unknown contender {name!r}: choose among {', '.join(_BUILT_IN)} or NAME=module:function")
        return _BUILT_IN[name]
    module, _, function = target.partition(":")
    if not name or not module or not function:
        raise ValueError(f"contender {spec!r} should read NAME=module:function")
    prepare = getattr(importlib.import_module(module), function)
    return Contender(name, name, torch.channels_last, prepare)


def chosen_backend(job: Job) -> AbstractContextManager:
    """The backend the job asks for, as a context; ``auto`` leaves the package's own choice alone."""
    if job.backend == "auto":
        return nullcontext()
    import resnet_fused

    return resnet_fused.backend(job.backend)
