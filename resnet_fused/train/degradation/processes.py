"""A process for each network and seed, some at a time.

A step of a small network is too short to be shared among threads, so each process has one. What a process prints comes
here through a pipe: one whose parent is gone ends at its next line, after an epoch that is saved.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections import deque
from dataclasses import asdict
from typing import Any, Callable, NamedTuple, Sequence

from resnet_fused.bench.termination import termination_as_interrupt
from resnet_fused.train import checkpoint
from resnet_fused.train.settings import Settings, TrainError, option_of

# What a cluster may have set for the processes of one run, which a child is not.
OF_PROCESSES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Task(NamedTuple):
    """A run of `resnet-fused train`; where the folder has a checkpoint, the rest of it."""

    settings: Settings
    folder: str

    def command(self) -> list[str]:
        options: list[str] = []
        for name, value in asdict(self.settings).items():
            if value is not False:
                options += [option_of(name)] if value is True else [option_of(name), str(value)]
        options += ["--resume"] if checkpoint.exists(self.folder) else []
        return [sys.executable, "-m", "resnet_fused", "train", *options, "--threads", "1", "--out", self.folder]


class _Child:
    def __init__(self, task: Task) -> None:
        self.task, self.errors = task, tempfile.TemporaryFile()
        environment = {name: value for name, value in os.environ.items() if name not in OF_PROCESSES}
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        # bufsize=0: a line that has come is read when the selector says so, and not one later.
        self.process = subprocess.Popen(task.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.errors, env=environment, bufsize=0)  # fmt: skip

    def finish(self) -> None:
        """Waits for its end; TrainError, in one sentence, where it failed."""
        status = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        self._close()
        if status:
            who = f"{self.task.settings.model} with seed {self.task.settings.seed}"
            how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            raise TrainError(f"{who}: {lines[-1].removeprefix('resnet-fused train: ') if lines else how}")

    def stop(self) -> None:
        self.process.terminate()
        self._close()  # before the end, which comes at the next line if the signal was lost
        self.process.wait()

    def _close(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.close()


def run_all(tasks: Sequence[Task], jobs: int, ended: Callable[[Task], Any], epoch: Callable[[], Any]) -> None:
    """Runs the tasks in their order, `jobs` at a time. epoch: is called after each epoch, ended: after each task.

    Whatever ends this early, such as a TrainError of a task, ends all processes; no more than an epoch of each is lost.
    """
    waiting = deque(tasks)
    with termination_as_interrupt(), selectors.DefaultSelector() as running:
        try:
            while waiting or running.get_map():
                while waiting and len(running.get_map()) < jobs:
                    child = _Child(waiting.popleft())
                    running.register(child.process.stdout, selectors.EVENT_READ, child)
                for key, _ in running.select():
                    line = key.fileobj.readline()
                    if line.startswith(b"epoch "):
                        epoch()
                    elif not line:
                        running.unregister(key.fileobj)
                        key.data.finish()
                        ended(key.data.task)
        finally:
            for key in list(running.get_map().values()):
                key.data.stop()
