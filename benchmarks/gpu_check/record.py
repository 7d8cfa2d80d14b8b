"""The result file: written whole after every message of a part, so that what was done survives what ends it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, Sequence

from resnet_fused.bench.result import to_json, write_atomically
from resnet_fused.bench.worker import without_folders

from .plan import Part
from .process import Outcome

SCHEMA = 1


def file_name(device: str, date: str) -> str:
    """gpu_<device>_<date>.json, of the device's product name."""
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"
    return f"gpu_{slug}_{date}.json"


def free_path(folder: Path, name: str) -> Path:
    """With a number where a run of the same day has the name: a result is never written over."""
    path, number = folder / name, 2
    while path.exists():
        path, number = folder / name.replace(".json", f"_{number}.json"), number + 1
    return path


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


class Record:
    """`data` is the JSON; a part's entry is made when it starts."""

    def __init__(self, path: Path, data: dict[str, Any]) -> None:
        self.path, self.data = path, data
        self._start = time.monotonic() - data.get("seconds", 0.0)

    @classmethod
    def new(cls, path: Path, command: str, **facts: Any) -> "Record":
        return cls(path, {"schema": SCHEMA, "command": command, "date": today(), "seconds": 0.0, **facts, "parts": []})

    @classmethod
    def resumed(cls, path: Path, command: str, device: dict[str, Any]) -> "Record":
        """What was done stays, but for the build: this may be another machine.

        ValueError for another kind of file, and for another device, other versions or other kernels, whose times are
        not to be mixed with these.
        """
        data = json.loads(path.read_text())
        if data.get("schema") != SCHEMA or "parts" not in data:
            raise ValueError(f"{path.name} is not a result of gpu-check with schema {SCHEMA}")
        if data["device"]["name"] != device["name"]:
            raise ValueError(f"{path.name} is of {data['device']['name']}, but this is {device['name']}")
        differing = differences(data["device"]["versions"], device["versions"])
        if differing:
            raise ValueError(f"{path.name} cannot be resumed: it has {', '.join(differing)}")
        data["parts"] = [part for part in data["parts"] if part["status"] == "done" and part["kind"] != "build"]
        data["command"] = f"{data['command']}; {command}"
        return cls(path, data)

    def done(self, part: Part) -> bool:
        return any(entry["name"] == part.name and entry["status"] == "done" for entry in self.data["parts"])

    def started(self, part: Part) -> dict[str, Any]:
        entry = {"name": part.name, "kind": part.kind, "arguments": part.arguments, "status": "running",
                 "seconds": 0.0, "error": None, "result": {}}  # fmt: skip
        self.data["parts"].append(entry)
        self.write()
        return entry

    def heard(self, entry: dict[str, Any], result: dict[str, Any]) -> None:
        entry["result"] = cleaned(result)
        self.write()

    def ended(self, entry: dict[str, Any], outcome: Outcome) -> None:
        error = None if outcome.error is None else without_folders(outcome.error)
        entry.update(status=outcome.status, error=error, seconds=outcome.seconds)
        self.write()

    def left_out(self, parts: Sequence[Part], reason: str) -> None:
        self.data["left_out"] = [{"name": part.name, "reason": reason} for part in parts]
        self.write()

    def bad(self) -> list[str]:
        """Why the command should fail: parts that failed, and what parts say is wrong."""
        sentences = []
        for entry in self.data["parts"]:
            if entry["status"] in ("failed", "running"):
                sentences.append(f"{entry['name']} failed: {entry['error'] or 'it was interrupted'}")
            sentences += entry["result"].get("bad", [])
        return sentences

    def write(self) -> None:
        self.data["seconds"] = time.monotonic() - self._start
        self.data["bad"] = self.bad()
        write_atomically(str(self.path), to_json(self.data))


def differences(recorded: dict[str, str | None], here: dict[str, str | None]) -> list[str]:
    """The versions that are not the same, each in words."""
    names = dict.fromkeys([*recorded, *here])
    return [f"{name} {recorded.get(name)}, where {here.get(name)} is here"
            for name in names if recorded.get(name) != here.get(name)]  # fmt: skip


def cleaned(value: Any) -> Any:
    """Without the folders that messages may quote."""
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, dict):
        return {key: cleaned(item) for key, item in value.items()}
    return value
