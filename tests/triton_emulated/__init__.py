"""The Triton kernels on a machine without a GPU: backend "triton_emulated" for CPU tensors.

A launch is compiled ahead of time for sm_80, specialised as it would be on a GPU, and its PTX is run by tests/emulator
on the tensors where they lie, with memory around them that must not be touched.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib

import pytest
import torch
from emulator import build
from emulator.library import Emulated
from resources import triton_compilation

from resnet_fused import backends
from resnet_fused.backends.traceable import Traceable
from resnet_fused.ops import fake

ARCH = "sm_80"  # the newest whose PTX the emulator knows
_NUMBERS = {"i1": ctypes.c_uint8, "i8": ctypes.c_int8, "i16": ctypes.c_int16, "i32": ctypes.c_int32,
            "i64": ctypes.c_int64, "u8": ctypes.c_uint8, "u16": ctypes.c_uint16, "u32": ctypes.c_uint32,
            "u64": ctypes.c_uint64, "fp32": ctypes.c_float, "fp64": ctypes.c_double}  # fmt: skip


def why_not() -> str | None:
    return build.why_not(nvcc=False) or triton_compilation.why_not()


needs_emulator = pytest.mark.skipif(why_not() is not None, reason=f"Triton's PTX cannot be run here: {why_not()}")


class Emulator:
    """Runs launches; what was built is kept by the PTX's content."""

    def __init__(self):
        self.kernels: dict[str, str] = {}  # PTX -> the name that it was loaded by

    @functools.cached_property
    def library(self) -> Emulated:
        return Emulated(build.runtime_library())

    def set_schedule(self, schedule: str, seed: int = 0) -> None:
        self.library.set_schedule(schedule, seed)

    def _load(self, name: str, ptx: str) -> str:
        if ptx not in self.kernels:
            key = hashlib.sha256(ptx.encode()).hexdigest()[:12]
            unique = f"{name}_{key}"
            ctypes.CDLL(str(build.ptx_library(unique, ptx.replace(f".entry {name}(", f".entry {unique}("))))
            self.kernels[ptx] = unique
        return self.kernels[ptx]

    def run(self, kernel, grid, arguments, options) -> None:
        """In the place of kernel[grid](*arguments, **options)."""
        variant = triton_compilation.variant_of(kernel, arguments, options)
        compiled = triton_compilation.compiled(variant, ARCH)
        name = self._load(variant.name, compiled.asm["ptx"])
        flat = triton_compilation.runtime_arguments(variant, arguments, options)
        numbers = [ctypes.c_void_p(value.data_ptr()) if kind.startswith("*") else _NUMBERS[kind](value)
                   for kind, value in flat]  # fmt: skip
        numbers += [ctypes.c_void_p(0)] * 2  # Triton's scratch memory, which our kernels have none of
        threads = (32 * compiled.metadata.num_warps,)
        with _guarded(self.library, [value for _, value in flat if isinstance(value, torch.Tensor)]):
            self.library.launch(name, grid, threads, compiled.metadata.shared, numbers)


@contextlib.contextmanager
def _guarded(library: Emulated, tensors):
    """Kernels must not touch what is next to these tensors."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    storages.pop(0, None)
    for address, nbytes in storages.items():
        library.guard(address, nbytes)
    try:
        yield
    finally:
        for address in storages:
            library.unguard(address)


@contextlib.contextmanager
def _tf32(allowed: bool):
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class _Operators:
    """The operators of resnet_fused.backends.triton, each run with launches emulated."""

    def __init__(self, emulator: Emulator):
        self.emulator = emulator
        self.tf32 = False  # in the place of torch.backends.cudnn.allow_tf32, which is True unless it is changed

    def __getattr__(self, name):
        operators = importlib.import_module("resnet_fused.backends.triton")
        launch = importlib.import_module("resnet_fused.backends.triton.launch")
        operator = getattr(operators, name)

        @functools.wraps(operator)
        def emulated(*arguments, **named):
            with launch.replaced(self.emulator.run), _tf32(self.tf32):
                return operator(*arguments, **named)

        return emulated


EMULATOR = Emulator()
OPERATORS = _Operators(EMULATOR)
backends.register("triton_emulated", Traceable("resnet_fused_triton_emulated", lambda: OPERATORS))
fake.register("resnet_fused_triton_emulated")
