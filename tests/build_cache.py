"""Folders of build products that are made again only when what they are made of has changed."""

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPILERS_AT_A_TIME = 2

_compilers = threading.Semaphore(COMPILERS_AT_A_TIME)


def digest(*parts) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(part if isinstance(part, bytes) else f"{part}\0".encode())
    return hashed.hexdigest()[:20]


def run(command) -> str:
    """What the command writes to standard output and error. Raises RuntimeError with the ends of both if it fails."""
    command = list(map(str, command))
    with _compilers:
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-8000:]}")
    return done.stdout + done.stderr


@contextlib.contextmanager
def alone(path: Path):
    """Other threads and processes that want to make `path` wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".lock-{path.name}"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _state_of(files) -> str:
    """System headers belong to the compiler: their times will do."""
    parts = []
    for path in sorted(set(files)):
        if not path.exists():
            return f"missing {path}"
        ours = path.resolve().is_relative_to(ROOT)
        parts.append(f"{path} {digest(path.read_bytes()) if ours else path.stat().st_mtime_ns}")
    return digest(*parts)


def made(folder: Path, key: str, make) -> Path:
    """`folder` after make(folder) has run; it need not run again until the key or a file in folder/depfile changes."""
    stamp, depfile = folder / "stamp", folder / "depfile"

    def state():
        words = depfile.read_text().replace("\\\n", " ").partition(": ")[2].split() if depfile.exists() else []
        return key + _state_of([Path(word) for word in words])

    with alone(folder):
        if not stamp.exists() or stamp.read_text() != state():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make(folder)
            stamp.write_text(state())
    return folder
