"""SIGTERM, by which clusters, containers and torchrun end a process, as Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Iterator


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Here SIGTERM raises KeyboardInterrupt; by itself it would end this process without a word, and leave those that
    it started. The first counts: timeout sends two. In other threads than the main one, where signals cannot be
    handled, it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
