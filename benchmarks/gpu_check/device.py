"""Timing, memory and graphs on a GPU, and the same words on a CPU for the emulator."""

from __future__ import annotations

import gc
import math
import time
from typing import Any, Callable

import torch

from .plan import Settings

Function = Callable[[], Any]


class Device:
    """A CPU; ``CudaDevice`` is the real one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.torch = torch.device(settings.device)

    @property
    def operators(self) -> Any:
        """Where our operators for this device are."""
        return torch.ops.resnet_fused_emulated

    def seconds(self, function: Function, repeats: int = 1) -> float:
        """Of one call, out of `repeats` in a row."""
        start = time.perf_counter()
        for _ in range(repeats):
            function()
        return (time.perf_counter() - start) / repeats

    def repeats(self, seconds: float, fraction: float = 1.0) -> int:
        """Calls of `seconds` that fill a turn, or a fraction of one."""
        return max(1, math.ceil(fraction * self.settings.turn_seconds / seconds)) if seconds > 0 else 1

    def capture(self, function: Function) -> Function:
        """What replays the function's kernels as a graph."""
        function()
        return function

    def peak_bytes(self, function: Function) -> int | None:
        """Memory that a call takes beyond what is in use before it."""
        return None

    def forget(self) -> None:
        """Gives back what no tensor uses."""
        gc.collect()

    def is_lost(self, error: BaseException) -> bool:
        """Whether nothing more can be run in this process."""
        return False


class CudaDevice(Device):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._pool: Any = None

    @property
    def operators(self) -> Any:
        return torch.ops.resnet_fused

    def seconds(self, function: Function, repeats: int = 1) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats

    def capture(self, function: Function) -> Function:
        """Warmed up on another stream, as torch.cuda.graph asks for.

        All graphs of a process share one pool of memory: each is replayed alone, and what it leaves behind is read
        before the next one.
        """
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            function()
        graph.replay()
        torch.cuda.synchronize()
        return graph.replay

    def peak_bytes(self, function: Function) -> int:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    def forget(self) -> None:
        super().forget()
        torch.cuda.empty_cache()

    def is_lost(self, error: BaseException) -> bool:
        """After an error of a kernel every later call fails; one of memory leaves the device as it was."""
        if isinstance(error, torch.cuda.OutOfMemoryError):
            return False
        try:
            torch.cuda.synchronize()
            return False
        except RuntimeError:
            return True


def open_device(settings: Settings) -> Device:
    """The device; the emulator's operators are built and registered as a backend."""
    if not settings.emulated:
        return CudaDevice(settings)
    import cuda_emulated

    import resnet_fused

    torch.set_num_threads(1)
    cuda_emulated.load()
    resnet_fused.backends.register(settings.backend, torch.ops.resnet_fused_emulated)
    return Device(settings)


def describe(error: BaseException) -> str:
    """One line; memory that ran out is said in three words, for it is a result like another."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "out of memory"
    from resnet_fused.bench.worker import describe as one_line

    return one_line(error)
