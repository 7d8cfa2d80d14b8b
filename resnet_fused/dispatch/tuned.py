"""The tuning cache: what measurements of units gave, kept between processes.

A JSON file, by default ~/.cache/resnet_fused/tuned.json (under $XDG_CACHE_HOME where that is set; $RESNET_FUSED_CACHE
names another folder):

    {"schema": 1, "machines": {machine: {problem: {candidate: milliseconds}}}}

It is read once a process and checked; one that is not such a file is left alone, with a warning. It is written by
replacing it whole, after merging what other processes wrote in the meantime.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from resnet_fused.backends import cache

SCHEMA = 1
Times = dict[str, float]


def default_path() -> Path:
    return cache.folder() / "tuned.json"


class TunedTable:
    """Times by machine and problem; `path` None: where the environment says."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._machines: dict[str, dict[str, Times]] | None = None

    @property
    def path(self) -> Path:
        return self._path or default_path()

    @property
    def machines(self) -> dict[str, dict[str, Times]]:
        if self._machines is None:
            try:
                self._machines = _read(self.path)
            except (OSError, ValueError) as error:
                warnings.warn(f"the tuning cache {self.path} is ignored, delete it to begin anew: {error}", stacklevel=2)
                self._machines = {}
        return self._machines

    def __bool__(self) -> bool:
        return bool(self.machines)

    def times(self, machine: str, problem: str) -> Times | None:
        return self.machines.get(machine, {}).get(problem)

    def record(self, machine: str, problem: str, times: Times) -> None:
        """Remembers the times, in the file too; where that cannot be written, in this process alone, with a warning."""
        self.machines.setdefault(machine, {})[problem] = times
        try:
            with cache.alone(self.path):
                merged = _read(self.path)
                merged.setdefault(machine, {})[problem] = times
                cache.replace(self.path, {"schema": SCHEMA, "machines": merged})
                self._machines = merged
        except (OSError, ValueError) as error:
            warnings.warn(f"the tuning cache {self.path} is not written: {error}", stacklevel=2)


def _read(path: Path) -> dict[str, dict[str, Times]]:
    """The file's machines; {} where there is none. Raises ValueError for anything that is not a tuning cache."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"it is not a tuning cache of schema {SCHEMA}")
    return _checked(content.get("machines"))


def _checked(machines) -> dict[str, dict[str, Times]]:
    def is_table(value) -> bool:
        return isinstance(value, dict)

    def is_time(value) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e300

    problems = [problem for machine in (machines.values() if is_table(machines) else [None])
                for problem in (machine.values() if is_table(machine) else [None])]  # fmt: skip
    if not all(is_table(times) and times and all(map(is_time, times.values())) for times in problems):
        raise ValueError("it holds something other than times")
    return machines
