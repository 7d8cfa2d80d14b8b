"""The user's cache directory, and files in it that several processes read and write."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from pathlib import Path


def folder() -> Path:
    """$RESNET_FUSED_CACHE, else $XDG_CACHE_HOME/resnet_fused, else ~/.cache/resnet_fused."""
    own, caches = os.environ.get("RESNET_FUSED_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    try:
        return (Path(caches) if caches else Path.home() / ".cache") / "resnet_fused"
    except RuntimeError:  # a user without $HOME or an entry among the system's users
        return Path(os.devnull) / "resnet_fused"  # where nothing can be; whoever writes is told


@contextlib.contextmanager
def alone(path: Path):
    """Other processes that write the file wait. The lock is a file of its own: `path` itself is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def replace(path: Path, content) -> None:
    """Writes the content as JSON; readers see the file as it was or as it will be. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())  # else the name may survive a power failure that the content does not
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
