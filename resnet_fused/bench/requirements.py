"""Optional packages, imported only when a command needs them."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingPackage(RuntimeError):
    """An optional package is not installed; the message says how to get it."""


def require(module: str, package: str, purpose: str, extra: str = "bench") -> ModuleType:
    """Import ``module``, or raise ``MissingPackage`` naming the pip ``package``, our extra and the ``purpose``."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f"{purpose} needs {package}: install it with pip install 'resnet-fused[{extra}]' or pip install {package} "
            f"({type(error).__name__}: {error})"
        ) from error
