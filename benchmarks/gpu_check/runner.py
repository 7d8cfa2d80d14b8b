"""Runs the parts one after another within the budget, shows what they do, and keeps the record."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Sequence

from . import report
from .plan import Part, Settings
from .process import Outcome, run
from .record import Record

LEAST = 15.0  # seconds: with less left a part is not begun
LOG_LINES = 15  # of a part that failed, on the terminal


class Screen:
    """One line that is overwritten where there is a terminal; a line per part where there is none."""

    def __init__(self, total: int) -> None:
        self.total, self.live = total, sys.stdout.isatty()
        self.start = time.monotonic()

    def progress(self, number: int, part: Part, text: str) -> None:
        if self.live:
            elapsed = time.monotonic() - self.start
            line = f"[{number}/{self.total}] {elapsed:4.0f} s  {part.name}: {text}"
            print(f"\r{line[:119]:<119}", end="", flush=True)

    def ended(self, number: int, part: Part, outcome: Outcome, tables: str) -> None:
        clear = "\r" + " " * 119 + "\r" if self.live else ""
        error = f": {outcome.error}" if outcome.error else ""
        ended = f"{outcome.status} in {outcome.seconds:.0f} s{error}"
        print(f"{clear}[{number}/{self.total}] {part.name}: {ended}", flush=True)
        if outcome.status == "failed":
            print("\n".join(f"    | {line}" for line in outcome.log.splitlines()[-LOG_LINES:]), flush=True)
        if tables:
            print(f"\n{tables}\n", flush=True)


def run_part(record: Record, part: Part, settings: Settings, seconds: float, screen: Screen, number: int) -> Outcome:
    entry = record.started(part)

    def hear(message: dict[str, Any]) -> None:
        if "result" in message:
            record.heard(entry, message["result"])
        elif "progress" in message:
            screen.progress(number, part, message["progress"])

    outcome = run(part, settings, seconds, hear)
    record.ended(entry, outcome)
    screen.ended(number, part, outcome, report.part_text(entry))
    return outcome


def run_parts(record: Record, parts: Sequence[Part], settings: Settings, deadline: float) -> None:
    """All that the record does not have yet. Without a build that works, nothing after it can."""
    todo = [part for part in parts if not record.done(part)]
    screen = Screen(len(todo))
    for i, part in enumerate(todo):
        left = deadline - time.monotonic()
        if left < LEAST:
            record.left_out(todo[i:], "the budget was used up")
            return
        outcome = run_part(record, part, settings, left, screen, i + 1)
        if part.kind == "build" and outcome.status != "done":
            record.left_out(todo[i + 1 :], "the build failed")
            return
    record.left_out([], "")


def finish(record: Record, path: Path) -> int:
    """What to know at the end, and the exit status."""
    left_out = record.data.get("left_out", [])
    if left_out:
        print(f"{len(left_out)} parts were not run ({left_out[0]['reason']}); go on with --resume {path}")
    for sentence in record.bad():
        print(f"BAD: {sentence}")
    print(f"written: {path}")
    return 1 if record.bad() else 0
