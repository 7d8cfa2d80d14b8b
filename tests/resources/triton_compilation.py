"""A Triton kernel compiled ahead of time, for an architecture that is not here: its PTX, and facts of its code."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

from build_cache import ROOT, run

from . import sass
from .occupancy import WARP, blocks_per_sm

CACHE = ROOT / "build" / "triton"


def why_not() -> str | None:
    """Why nothing can be compiled here, or None."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "TRITON_INTERPRET=1: kernels are interpreted in this process"
    return None


class Variant(NamedTuple):
    """A kernel as a launch with certain arguments has it compiled."""

    kernel: object  # a JITFunction
    signature: dict
    constexprs: dict
    attrs: dict
    options: tuple  # (name, value)

    @property
    def name(self) -> str:
        return self.kernel.__name__


def _target(arch: str):
    from triton.backends.compiler import GPUTarget

    return GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)


@functools.cache
def _backend():
    from triton.compiler import make_backend

    return make_backend(_target("sm_80"))


@functools.cache
def _binder(kernel):
    from triton.runtime.jit import create_function_from_signature

    return create_function_from_signature(kernel.signature, kernel.params, _backend())


def variant_of(kernel, arguments, options) -> Variant:
    """By Triton's own rules: constexprs, None, integers that are 1, multiples of 16, addresses on boundaries."""
    bound, specialization, _ = _binder(kernel)(*arguments, **options)
    _, signature, constexprs, attrs = kernel._pack_args(_backend(), dict(options), bound, specialization, {})
    launch = tuple((name, value) for name, value in options.items() if name not in signature)
    return Variant(kernel, signature, constexprs, attrs, launch)


def runtime_arguments(variant: Variant, arguments, options) -> list:
    """(type, value) of what the compiled kernel still takes, in its order, tuples taken apart."""
    bound, _, _ = _binder(variant.kernel)(*arguments, **options)
    flat = []

    def flatten(kind, value):
        if isinstance(kind, tuple):
            for inner, element in zip(kind, value):
                flatten(inner, element)
        elif kind != "constexpr":
            flat.append((kind, value))

    for name, kind in variant.signature.items():
        flatten(kind, bound[name])
    return flat


def compiled(variant: Variant, arch: str):
    """Triton's CompiledKernel: asm["ptx"], asm["cubin"], metadata. Triton keeps what it has compiled."""
    import triton

    os.environ.setdefault("TRITON_CACHE_DIR", str(CACHE))
    source = triton.compiler.ASTSource(variant.kernel, variant.signature, variant.constexprs, variant.attrs)
    return triton.compile(source, target=_target(arch), options=dict(variant.options))


def _tool(name: str) -> Path:
    return Path(importlib.util.find_spec("triton").origin).parent / "backends" / "nvidia" / "bin" / name


_USAGE = re.compile(r"Function (\w+):\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


def facts(variant: Variant, arch: str, folder: Path) -> dict:
    """Registers, memory, occupancy and instructions, in the columns of table.py; `folder` is for the tools' files."""
    kernel = compiled(variant, arch)
    path = folder / f"{kernel.metadata.hash}.cubin"
    path.write_bytes(kernel.asm["cubin"])
    used = _USAGE.search(run([_tool("cuobjdump"), "--dump-resource-usage", path]))
    name, registers, stack, static, local = used[1], *map(int, used.groups()[1:])
    threads, shared = kernel.metadata.num_warps * WARP, max(static, kernel.metadata.shared)
    blocks = blocks_per_sm(arch, registers, threads, shared)
    counts = sass.count(run([_tool("nvdisasm"), "-c", "-gi", path]))[name]
    return {"registers": registers, "stack": stack, "local": local, "shared": shared, "threads": threads,
            "blocks": blocks, "warps": blocks * -(-threads // WARP), **counts}  # fmt: skip


def version() -> str:
    import triton

    return triton.__version__
