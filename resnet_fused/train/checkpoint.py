"""A run's state in one file, which is whole at any time: the old one or the new one, whenever the process dies.

It holds tensors, numbers, strings, lists and dictionaries and nothing else, and is loaded as such: a file that would
run code when unpickled is refused.
"""

from __future__ import annotations

import contextlib
import os
import random
import zipfile
from typing import Any

import torch

from resnet_fused.train.settings import TrainError

NAME = "checkpoint.pt"
PARTIAL = NAME + ".partial"  # one name, so that what a dying process left is overwritten and not collected
SCHEMA = 1


def save(folder: str, content: dict[str, Any]) -> None:
    """Replaces the folder's checkpoint; TrainError where it cannot be written (a full disk, no permission)."""
    partial, path = os.path.join(folder, PARTIAL), os.path.join(folder, NAME)
    try:
        with open(partial, "wb") as file:
            torch.save({"schema": SCHEMA, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        # torch.save turns a full disk into a RuntimeError.
        raise TrainError(f"{path} cannot be written: {' '.join(str(error).split())}") from error


def _sync_folder(folder: str) -> None:
    """The new name too must outlive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exists(folder: str) -> bool:
    """Whether the folder holds a checkpoint."""
    return os.path.lexists(os.path.join(folder, NAME))


def missing(folder: str) -> TrainError:
    """What is raised where there is no checkpoint to go on with."""
    return TrainError(f"there is no {os.path.join(folder, NAME)} to resume from")


def load(folder: str) -> dict[str, Any]:
    """The folder's checkpoint, its tensors on the CPU; TrainError where there is none, or it is not one of ours."""
    path = os.path.join(folder, NAME)
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise missing(folder) from error
    except Exception as error:  # an unpickler of damaged bytes can raise anything
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise TrainError(f"there is not enough memory to load {path}") from error
        raise TrainError(f"{path} is damaged, or no checkpoint of resnet-fused train; it was not loaded") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise TrainError(f"{path} is no checkpoint of this version of resnet-fused train")
    return {"ran": [{"from_epoch": 1, "environment": None}], **content}  # the first ones did not say


def _check_sums(path: str) -> None:
    """Raises where a bit is not as it was written: torch.load reads the archive's checksums, and compares none."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)


def random_states() -> dict[str, Any]:
    """Of Python's and torch's generators, on all devices in use. Nothing here draws from numpy's."""
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Undoes what was drawn since random_states()."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
