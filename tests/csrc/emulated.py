"""Building and calling the kernels of emulator_kernels/."""

import contextlib
import ctypes
from pathlib import Path

import torch
from emulator import build
from emulator.library import Emulated

KERNELS = Path(__file__).parent / "emulator_kernels"
NVCC_FLAGS = ["-lineinfo", "-fmad=false"]


def load(name, variant="", **options) -> Emulated:
    """variant: a name for the options, where they have edit_ptx."""
    library = f"test_{name}{variant}"
    return Emulated(build.library(library, [KERNELS / f"{name}.cu"], nvcc_flags=NVCC_FLAGS, **options))


def run(emulated, launcher, *arguments) -> None:
    """Calls launch_<launcher>, tensors by their addresses. Raises RuntimeError with the emulator's message."""
    passed = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else a for a in arguments]
    status = getattr(emulated.functions, f"launch_{launcher}")(*passed)
    message = emulated.last_error()
    if status or message:
        raise RuntimeError(f"{status}: {message}")


@contextlib.contextmanager
def guarded(emulated, *shape, dtype=torch.float32, fill=0):
    """A tensor with memory around it that kernels must not access."""
    count, size = torch.Size(shape).numel(), torch.empty((), dtype=dtype).element_size()
    memory = torch.zeros(count * size + 1024, dtype=torch.uint8)
    start = 512 - memory.data_ptr() % 256
    tensor = memory[start : start + count * size].view(dtype).view(shape).fill_(fill)
    emulated.guard(tensor.data_ptr(), count * size)
    try:
        yield tensor
    finally:
        emulated.unguard(tensor.data_ptr())
