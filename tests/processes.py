"""Several processes of one gloo group, each running the same function, with an end to their time."""

from __future__ import annotations

import multiprocessing
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable

import torch
import torch.distributed as dist

TIMEOUT = 240  # seconds: ten times what a job takes on an idle machine

# Torch is imported once, and forked.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "resnet_fused"])


def _member(work: Callable[..., Any], rank: int, size: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size, timeout=timedelta(seconds=60)
    )
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
    dist.destroy_process_group()


def together(work: Callable[..., Any], size: int, folder: Path, *arguments: Any) -> list[Any]:
    """work(rank, *arguments) in `size` processes → what each returned; work is found by its name, in another process.

    Whatever has not ended in time is killed. AssertionError where a process failed; what it wrote is above.
    """
    members = [_context.Process(target=_member, args=(work, rank, size, folder, arguments)) for rank in range(size)]
    deadline = time.monotonic() + TIMEOUT
    for member in members:
        member.start()
    try:
        for member in members:
            member.join(max(0.0, deadline - time.monotonic()))
        statuses = [member.exitcode for member in members]
    finally:
        for member in members:
            if member.is_alive():
                member.kill()
                member.join()
    assert statuses == [0] * size, f"exit statuses {statuses}, None: killed after {TIMEOUT} s"
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]
