"""The result as JSON: everything measured, every round, and what may be concluded from it."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import tempfile
from dataclasses import asdict
from typing import Any, Iterator

from . import contenders
from .race import Entry, Race
from .statistics import paired_speedup, spread, throughput
from .verdict import Errors, Scales, judge

SCHEMA = 1
BASELINE = "channels_last"  # the layout whose gradient errors are the unit; eager's other layout is the control


def finite(value: float | None) -> float | None:
    """JSON knows no infinity: what is not finite becomes null."""
    return value if value is not None and math.isfinite(value) else None


def eager_errors(race: Race) -> dict[str, Errors]:
    """Eager float32's errors per layout, from the oracle's reply."""
    return {layout: Errors(**errors) for layout, errors in race.oracle["eager"].items()}


def _numbers(race: Race, errors: Errors) -> dict[str, Any]:
    verdict = judge(errors, eager_errors(race), Scales(**race.oracle["scales"]), race.job.longest_reduction, BASELINE)
    return {
        "output_error": finite(errors.output),
        "gradient_error": finite(verdict.gradient_worst),
        "gradient_ratio": finite(verdict.gradient_ratio),
        "reasons": list(verdict.reasons),
        "output_bound": verdict.output_bound,
    }


def _contender(race: Race, entry: Entry) -> dict[str, Any]:
    """One contender's part of the JSON; ``status`` is ok, wrong or failed."""
    contender = {"name": contenders.name_of(entry.spec), "label": contenders.label_of(entry.spec)}
    timing = {"warm_up_seconds": entry.warm_ups, "round_seconds": entry.seconds}
    if entry.error is not None or entry.errors is None:
        return {**contender, "status": "failed", "error": entry.error or "did not finish", **timing}
    numbers = _numbers(race, Errors(**entry.errors))
    numbers.pop("output_bound")
    saved = entry.memory["saved_for_backward_bytes"]
    steady = spread(entry.seconds).median
    return {
        **contender,
        "status": "wrong" if numbers["reasons"] else "ok",
        **numbers,
        **timing,
        "compile_seconds": max(0.0, entry.warm_ups[0] - steady) if contenders.compiles(entry.spec) else None,
        "images_per_second": asdict(throughput(entry.seconds, race.job.batch)),
        **entry.memory,
        "saved_for_backward_bytes_per_image": None if saved is None else saved / race.job.batch,
    }


def speedups(race: Race, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The subject's speed-up over each peer; none where either's numbers are wrong or missing."""
    by_name = {row["name"]: row for row in rows if row["status"] == "ok"}
    subject = by_name.pop(contenders.SUBJECT, None)
    if subject is None:
        return []
    return [
        {"over": name, **asdict(paired_speedup(subject["round_seconds"], peer["round_seconds"]))}
        for name, peer in by_name.items()
    ]


def job_result(race: Race) -> dict[str, Any]:
    """One job's part of the JSON."""
    rows = [_contender(race, entry) for entry in race.entries]
    eager = {layout: _numbers(race, errors) for layout, errors in eager_errors(race).items()}
    bound = next(iter(eager.values()))["output_bound"]
    return {
        **asdict(race.job),
        "rounds": race.rounds,
        "seconds": race.seconds,
        "check_images": race.oracle["images"],
        "check_steps": race.oracle["steps"],
        "output_scale": race.oracle["scales"]["output"],
        "output_bound": finite(bound),
        "eager": {
            layout: {key: numbers[key] for key in ("output_error", "gradient_error", "gradient_ratio")}
            for layout, numbers in eager.items()
        },
        "contenders": rows,
        "left_out": [{"name": contenders.name_of(spec), "reason": reason} for spec, reason in race.left_out.items()],
        "speedups": speedups(race, rows),
    }


def bad(job: dict[str, Any]) -> list[str]:
    """Why the command should fail: a sentence for each wrong contender, and for a subject that did not run."""
    sentences = []
    for row in job["contenders"]:
        if row["status"] == "wrong":
            sentences.append(f"{row['label']} is wrong on {job['model']} {job['mode']}: {'; '.join(row['reasons'])}")
        elif row["status"] == "failed" and row["name"] == contenders.SUBJECT:
            sentences.append(f"{row['label']} failed on {job['model']} {job['mode']}: {row['error']}")
    return sentences


class Unwritable(OSError):
    """A result cannot be written where it was asked for; the message says why."""


@contextlib.contextmanager
def _unwritable(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable(f"{path} cannot be written to: {error.strerror or error}") from error


def check_writable(*paths: str | None) -> None:
    """Before the work: make the folders of those that are given and write in them, leaving no file; or Unwritable."""
    for path in filter(None, paths):
        with _unwritable(path):
            if os.path.isdir(path):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            tempfile.TemporaryFile(dir=_folder_of(path)).close()


def write_output(path: str, text: str) -> None:
    """write_atomically with words for the user where that fails: Unwritable."""
    with _unwritable(path):
        write_atomically(path, text)


def _folder_of(path: str) -> str:
    """The folder, made if need be."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError:  # "File exists" would be about a folder that nobody named
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder) from None
    return folder


def write_atomically(path: str, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part, even after a power failure."""
    folder = _folder_of(path)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".partial-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # the new name could reach the disk before the text
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp's 0600 is for secrets
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # an interrupt came after the replacement
            os.unlink(temporary)
        raise


def to_json(result: dict[str, Any]) -> str:
    """The JSON text; refuses what JSON cannot say."""
    return json.dumps(result, indent=1, allow_nan=False) + "\n"
