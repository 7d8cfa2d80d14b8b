"""A part's process seen from outside: its messages as they come, and how it ended. Standard library only."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable

from .plan import Part, Settings

ROOT = Path(__file__).resolve().parents[2]
# Of the tests, their problems and what they hold results to serve here too.
FOLDERS = (ROOT, ROOT / "benchmarks", ROOT / "tests", ROOT / "tests" / "backends")
GRACE = 10.0  # seconds a part has after its limit, within which it ends what takes too long by itself


@dataclass
class Outcome:
    """`status`: done; failed (`error` says how); cut, where the budget ended before the part's own limit."""

    status: str
    error: str | None
    seconds: float
    log: str = ""  # the end of what it printed


def environment(**more: str) -> dict[str, str]:
    """For a process that finds this source tree, whatever is installed."""
    path = os.pathsep.join([*map(str, FOLDERS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


def run(part: Part, settings: Settings, seconds: float, hear: Callable[[dict[str, Any]], None]) -> Outcome:
    """Run a part for at most its limit or `seconds`; `hear` gets each of its messages."""
    limit = min(part.limit, seconds)
    request = {"kind": part.kind, "arguments": part.arguments, "settings": asdict(settings), "seconds": limit}
    start = time.monotonic()
    # Units are measured anew, whatever the user measured before.
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as cache:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpu_check.part", json.dumps(request)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment(RESNET_FUSED_CACHE=cache), cwd=ROOT,
            start_new_session=True,  # so that the end reaches what the part started
        )  # fmt: skip
        try:
            error = _listen(process, start + limit + GRACE, hear)
        finally:
            _end(process)
        taken = time.monotonic() - start
        log.seek(0)
        text = log.read().decode(errors="replace").strip()
    if error is None and process.returncode == 0:
        return Outcome("done", None, taken, text)
    if error is None:
        return Outcome("failed", _obituary(process.returncode, text), taken, text)
    if error == "" and limit < part.limit:
        return Outcome("cut", f"the budget ended after {taken:.0f} s of it", taken, text)
    return Outcome("failed", error or f"no end within {taken:.0f} s", taken, text)


def _listen(process: subprocess.Popen, deadline: float, hear: Callable[[dict[str, Any]], None]) -> str | None:
    """Messages until the process ends: None; its own error; or "" where the deadline came first."""
    assert process.stdout is not None
    descriptor, buffer, error = process.stdout.fileno(), b"", None
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return ""
        data = os.read(descriptor, 1 << 16)
        if not data:
            process.wait()
            return error
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            error = message.get("error", error)
            hear(message)


def _end(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _obituary(code: int, text: str) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
    lines = text.splitlines()
    return f"the process {how}" + (f": {lines[-1].strip()}" if lines else "")
