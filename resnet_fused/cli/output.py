"""Standard output, which somebody may close before the command ends, as head does."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import Iterator


class NobodyListens(Exception):
    """Standard output was closed. No OSError: those are of files that a command writes."""


@contextlib.contextmanager
def listened_to() -> Iterator[None]:
    """Raises NobodyListens where what is written within finds standard output closed."""
    try:
        yield
        _flush()
    except BrokenPipeError as error:
        if _is_closed():
            raise NobodyListens from error
        raise  # of another pipe


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _is_closed() -> bool:
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError):  # there is none, or it is a stream of Python's own
        return False
    polled = select.poll()
    polled.register(descriptor, select.POLLOUT)
    return any(events & select.POLLERR for _, events in polled.poll(0))


def discard() -> None:
    """What a failed write left in the buffer is written again when the interpreter ends: now to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
