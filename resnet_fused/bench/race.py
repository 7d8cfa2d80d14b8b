"""Round robin over the contenders' processes, within a time budget."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Sequence

from . import contenders, oracle
from .job import Job
from .process import WorkerFailed, WorkerProcess
from .worker import TURN_SECONDS

WARM_UPS = 2  # the first allocates and compiles, the second shows a steady step; on a slow machine only the first
MOST_ROUNDS = 30
SLOWEST_START = 120.0  # seconds for imports and for building a model, on a busy machine
SLOWEST_COMPILATION = 1800.0  # seconds, where no budget says less
SETTLE_SECONDS = 0.05  # before a turn: the threads of the last one have stopped spinning (process.py)
TIMEOUT_FACTOR = 20.0  # a step this many times slower than its warm-up hangs

Progress = Callable[[str], None]


@dataclass
class Entry:
    """One contender's measurements; ``error`` names what stopped it."""

    spec: str
    warm_ups: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Any] | None = None
    error: str | None = None


@dataclass
class Race:
    """What one job gave: the oracle's reply, the number of rounds and one entry per contender that raced.

    ``left_out`` has the reason for each of the others.
    """

    job: Job
    oracle: dict[str, Any]
    entries: list[Entry]
    rounds: int
    seconds: float
    left_out: dict[str, str]


def rotated(items: Sequence[Any], by: int) -> list[Any]:
    """``items`` with another one first each round, so that no contender always follows the same one."""
    by %= max(1, len(items))
    return [*items[by:], *items[:by]]


class _Track:
    """The processes of one race. A contender that fails leaves the track, the others go on."""

    def __init__(self, job: Job, specs: Sequence[str], deadline: float, progress: Progress) -> None:
        self.job, self.deadline, self.progress = job, deadline, progress
        self.entries = [Entry(spec) for spec in specs]
        self.workers: dict[str, WorkerProcess] = {}

    def __enter__(self) -> "_Track":
        self.oracle = WorkerProcess(self.job.threads)
        for entry in self.entries:  # they import while the oracle computes
            self.workers[entry.spec] = WorkerProcess(self.job.threads)
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in [self.oracle, *self.workers.values()]:
            worker.close()

    def running(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.error is None]

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def ask(self, entry: Entry, do: str, timeout: float, **arguments: Any) -> Any:
        """A request to a contender; its failure is recorded and gives ``None``."""
        self.progress(f"{contenders.name_of(entry.spec)}: {do}")
        try:
            return self.workers[entry.spec].ask(do, timeout, **arguments)
        except WorkerFailed as failure:
            entry.error = str(failure)
            self.workers[entry.spec].close()
            return None

    def warm_up(self, start_file: str) -> None:
        for entry in self.entries:
            self.ask(entry, "hello", SLOWEST_START)
        for entry in self.running():
            self.ask(entry, "prepare", SLOWEST_START, job=asdict(self.job), contender=entry.spec, start_file=start_file)
        for turn in range(WARM_UPS):
            first_steps = sorted(entry.warm_ups[0] for entry in self.running() if entry.warm_ups)
            # What must follow costs about four rounds: one that counts, saved bytes, the check, and this warm-up.
            # Inference is short, and fused packs its weights in the second call with the same ones.
            hurried = turn > 0 and self.job.mode == "train"
            if hurried and first_steps and self.left() < 4 * len(first_steps) * first_steps[len(first_steps) // 2]:
                return
            for entry in self.running():
                patience = min(SLOWEST_COMPILATION, max(SLOWEST_START, self.left()))
                seconds = self.ask(entry, "step", patience)
                if seconds is not None:
                    entry.warm_ups.append(seconds)

    def run_rounds(self, most: int) -> int:
        """Rounds until ``most`` or until another one would not leave time to check the numbers."""
        done = 0
        while done < most and self.running():
            steady = {entry.spec: (entry.seconds or entry.warm_ups)[-1] for entry in self.running()}
            one_round = sum(step if step >= TURN_SECONDS else TURN_SECONDS + 2 * step for step in steady.values())
            # What comes after: a forward to count saved bytes, a step and its comparison to check numbers.
            if done > 0 and self.left() < 3 * one_round + 2:
                break
            for entry in rotated(self.running(), done):
                time.sleep(SETTLE_SECONDS)
                seconds = self.ask(entry, "turn", 30 + TIMEOUT_FACTOR * max(TURN_SECONDS, steady[entry.spec]))
                if seconds is not None:
                    entry.seconds.append(seconds)
            done += 1
        return done

    def finish(self, exact_file: str) -> None:
        for entry in self.running():
            entry.memory = self.ask(entry, "memory", SLOWEST_START + TIMEOUT_FACTOR * entry.warm_ups[-1]) or {}
        for entry in self.running():
            timeout = SLOWEST_START + max(entry.warm_ups) + TIMEOUT_FACTOR * entry.warm_ups[-1]
            if contenders.compiles(entry.spec):
                timeout += SLOWEST_COMPILATION  # a step on fewer images may be compiled anew
            entry.errors = self.ask(entry, "check", timeout, exact_file=exact_file)


def run_race(job: Job, specs: Sequence[str], budget: float, most_rounds: int | None, progress: Progress) -> Race:
    """Race ``specs`` on ``job`` for about ``budget`` seconds: at least one round, at most ``most_rounds``.

    ``progress`` is told what is about to run. Contenders that cannot race here are left out with the reason, those that
    fail are in the result with their error; an oracle that fails raises ``WorkerFailed``, for without it nothing can be
    judged.
    """
    start = time.monotonic()
    left_out = {spec: reason for spec in specs if (reason := contenders.why_not(spec, job.mode))}
    with tempfile.TemporaryDirectory(prefix="resnet-fused-") as folder:
        start_file, exact_file = os.path.join(folder, "start.pt"), os.path.join(folder, "exact.pt")
        with _Track(job, contenders.racing(specs, job.mode), start + budget, progress) as track:
            progress("float64 reference")
            timeout = SLOWEST_START + 20 * oracle.CHECK_SECONDS
            answer = track.oracle.ask("oracle", timeout, job=asdict(job), start_file=start_file, exact_file=exact_file)
            track.oracle.close()  # its memory is not needed any more
            track.warm_up(start_file)
            rounds = track.run_rounds(most_rounds or MOST_ROUNDS)
            track.finish(exact_file)
    return Race(job, answer, track.entries, rounds, time.monotonic() - start, left_out)
