"""Standard output, which somebody may close before the command ends, as head does."""

from __future__ import annotations

import contextlib
import os
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
        try:
            _flush()  # again: what could not be written is still there
        except BrokenPipeError:
            raise NobodyListens from error
        raise  # of another pipe


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def discard() -> None:
    """What a failed write left in the buffer is written again when the interpreter ends: now to nowhere."""
    with contextlib.suppress(OSError):  # a stream that is no file has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
