"""The C interface of a library that build.py made (runtime/emulator.h)."""

import contextlib
import ctypes
import json
from pathlib import Path

SCHEDULES = ("random", "latest")


class Emulated:
    """A loaded library. `functions` are its own exported functions: emulated.functions.launch_add(...)."""

    def __init__(self, path: Path):
        self.functions = ctypes.CDLL(str(path))
        self.functions.emulator_last_error.restype = ctypes.c_char_p
        self.functions.emulator_counters.restype = ctypes.c_char_p
        self.functions.emulator_guard.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.functions.emulator_unguard.argtypes = [ctypes.c_void_p]
        self.functions.emulator_set_schedule.argtypes = [ctypes.c_char_p, ctypes.c_uint64]

    def launch(self, kernel: str, grid, threads, shared_bytes: int, arguments) -> None:
        """A kernel by its name in the PTX; arguments are ctypes' numbers. Raises RuntimeError with the message."""
        pointers = (ctypes.c_void_p * len(arguments))(*[ctypes.addressof(argument) for argument in arguments])
        sizes = [(ctypes.c_uint32 * 3)(*extent, *[1] * (3 - len(extent))) for extent in (grid, threads)]
        if self.functions.emulator_launch(kernel.encode(), *sizes, ctypes.c_size_t(shared_bytes), pointers):
            raise RuntimeError(self.last_error())

    def last_error(self) -> str | None:
        """What went wrong in the last launch that failed. Asking clears it."""
        message = self.functions.emulator_last_error()
        return message and message.decode()

    def set_schedule(self, name: str, seed: int = 0) -> None:
        """"random" or "latest": in which order lanes, warps and blocks run, and when asynchronous copies land."""
        if self.functions.emulator_set_schedule(name.encode(), seed):
            raise ValueError(f"schedule {name!r} is none of {SCHEDULES}")

    def guard(self, address: int, nbytes: int) -> None:
        """Makes accesses within 256 bytes of this memory, and not in it or another guarded range, an error."""
        self.functions.emulator_guard(address, nbytes)

    def unguard(self, address: int) -> None:
        self.functions.emulator_unguard(address)

    def check_canaries(self) -> str | None:
        """What was written next to a torch tensor, if anything. The library needs build.TORCH_ALLOCATOR."""
        self.functions.emulator_check_canaries.restype = ctypes.c_char_p
        message = self.functions.emulator_check_canaries()
        return message and message.decode()

    @contextlib.contextmanager
    def counting(self):
        """Yields a function that returns what was counted since, by the kernel's mangled name."""
        self.functions.emulator_reset_counters()
        self.functions.emulator_set_counting(1)
        try:
            yield lambda: json.loads(self.functions.emulator_counters())
        finally:
            self.functions.emulator_set_counting(0)
