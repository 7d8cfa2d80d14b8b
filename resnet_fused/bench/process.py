"""The parent's end of a worker: requests out, replies in, within a time limit."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any


class WorkerFailed(RuntimeError):
    """A request raised in the worker, or the worker died or took too long; the message says which."""


class WorkerProcess:
    """One ``resnet_fused.bench.worker``. Requests block until answered; ``send`` and ``receive`` split the two."""

    def __init__(self, threads: int) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        # GCC's OpenMP lets waiting threads spin for some milliseconds, which a pause between turns covers, LLVM's and
        # Intel's for 200, which would take time from the next contender's turn.
        environment.setdefault("KMP_BLOCKTIME", "10")
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "resnet_fused.bench.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment,
            start_new_session=True,  # so that closing reaches the compile workers torch.compile starts
        )
        self._buffer = b""
        self._closed = False

    def send(self, do: str, **arguments: Any) -> None:
        """Write one request."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise WorkerFailed(self._obituary()) from None

    def receive(self, timeout: float) -> Any:
        """Wait for the reply and return its value, or raise ``WorkerFailed``."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise WorkerFailed(f"no answer within {timeout:.0f} s")
            data = os.read(descriptor, 1 << 16)
            if not data:
                raise WorkerFailed(self._obituary())
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message = json.loads(line)
        if "error" in message:
            raise WorkerFailed(message["error"])
        return message["value"]

    def ask(self, do: str, timeout: float, **arguments: Any) -> Any:
        """One request and its reply."""
        self.send(do, **arguments)
        return self.receive(timeout)

    def close(self) -> None:
        """End the process and everything it started; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass  # a request that a dead worker never read

    def _obituary(self) -> str:
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the process {how}" + (f": {lines[-1].strip()}" if lines else "")
