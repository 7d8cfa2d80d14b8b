"""One writer to a folder at a time: two would mix their checkpoints and tables."""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from typing import IO

from resnet_fused.train.settings import TrainError

NAME = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that knows none: all are trusted there
_held: weakref.WeakSet[IO[bytes]] = weakref.WeakSet()


def locked(folder: str) -> IO[bytes]:
    """This process's alone is an existing folder until the file that is returned is closed, or the process dies.

    The lock is the system's (flock) and not the file, which stays: whoever opened one that is then removed would hold
    another than the next. Raises TrainError where another process has it, or the folder cannot be written to.
    """
    try:
        file = open(os.path.join(folder, NAME), "ab")
    except OSError as error:
        raise TrainError(f"the folder {folder} cannot be written to: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            file.close()
            words = "another process is writing to it: wait for its end, or name another folder with --out"
            raise TrainError(f"{folder}: {words}") from error
    _held.add(file)
    return file


def _close_copies() -> None:
    """A forked process, such as one that loads images, would keep the lock for a while when its parent is killed."""
    for file in _held:
        file.close()


os.register_at_fork(after_in_child=_close_copies)
