"""Which networks and seeds are trained, with which settings, and what of it is already done."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import asdict
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from resnet_fused import models
from resnet_fused.train import checkpoint, folder_lock
from resnet_fused.train.degradation.processes import Task, run_all
from resnet_fused.train.settings import Settings, TrainError, complete, place_of, restored, resumed

FAMILIES = ("plain", "resnet")
# Where they differ from those of training: a rate at which 56 layers with shortcuts learn well, and epochs enough for
# the training errors to settle, yet few enough for four networks and three seeds in ten minutes of two cores.
_DEFAULTS: dict[str, dict[str, Any]] = {"digits": dict(epochs=25, lr=0.05, warmup=2)}


def _depths() -> tuple[int, ...]:
    """Those of which there is a network of every family."""
    found = {tuple(match.groups()) for name in models.list_models() if (match := re.fullmatch(r"(\D+)(\d+)", name))}
    return tuple(sorted(int(d) for f, d in found if f == FAMILIES[0] and all((g, d) in found for g in FAMILIES)))


DEPTHS = _depths()


class Experiment(NamedTuple):
    """given: fields of Settings by name, but model and seed; `data` among them."""

    given: Mapping[str, Any]
    depths: Sequence[int]
    seeds: Sequence[int]


_Key = tuple[str, int, int]  # family, depth, seed


class Trained(NamedTuple):
    """One network of one seed; rows: of metrics.FIELDS, one for each epoch; ran: on what, since which epoch."""

    family: str
    depth: int
    seed: int
    rows: list[dict[str, Any]]
    ran: Sequence[dict[str, Any]] = ()

    @property
    def network(self) -> str:
        return f"{self.family}{self.depth}"


def settings_of(experiment: Experiment, model: str, seed: int) -> Settings:
    """Of one network and seed; TrainError for values out of their range."""
    usual = _DEFAULTS.get(place_of(experiment.given["data"]).partition(":")[0], {})
    return complete({**experiment.given, "model": model, "seed": seed}, usual)


def public_settings(experiment: Experiment) -> dict[str, Any]:
    """What all networks and seeds have in common, without the place of the data."""
    settings = settings_of(experiment, f"{FAMILIES[0]}{experiment.depths[0]}", experiment.seeds[0])
    values = {**asdict(settings), "data": settings.kind}
    return {name: value for name, value in values.items() if name not in ("model", "seed")}


@contextlib.contextmanager
def opened(experiment: Experiment, out: str) -> Iterator[None]:
    """This process's alone is `out` while the context is open; it is made where it is missing.

    Raises TrainError, before that, for settings that no network can have; where another process is writing there; and
    OSError where the folder cannot be made.
    """
    _plan(experiment, out)
    os.makedirs(out, exist_ok=True)
    with folder_lock.locked(out):
        yield


def train(
    experiment: Experiment, out: str, jobs: int, say: Callable[[str], Any] = print,
    progress: Callable[[int], Any] = lambda epochs: None,
) -> list[Trained]:  # fmt: skip
    """Trains what is not yet done, `jobs` networks at a time → all of them, by family, depth and seed.

    Each is a `resnet-fused train` in a folder of its own in `out`: one that was interrupted goes on after its last
    epoch, one that is finished is not repeated. say: is told a line for each that ends. progress: is told how many
    epochs are done, at first those of earlier calls. Raises TrainError where one of them cannot be trained, or where
    `out` holds networks of other settings, before anything is trained; and where their data differ. KeyboardInterrupt
    ends all processes.
    """
    planned = _plan(experiment, out)
    waiting, read = [], []

    def compared(task: Task) -> dict[str, Any]:
        """The task's epochs; TrainError where they are of other images than those of the tasks before."""
        saved = _saved(task)
        if saved["rows"]:
            read.append(saved["data"])
            if read[0] != read[-1]:
                words = "it was trained on other data than the networks beside it; name another folder with --out"
                raise TrainError(f"{task.folder}: {words}")
        return saved

    for task in planned.values():
        done = len(compared(task)["rows"])
        progress(done)
        if done < task.settings.epochs:
            waiting.append(task)

    def ended(task: Task) -> None:
        last = compared(task)["rows"][-1]
        training, testing = (f"{1 - last[f'{part}_accuracy']:.2%}" for part in ("train", "test"))
        say(f"{task.settings.model}, seed {task.settings.seed}: training error {training}, test error {testing}")

    run_all(waiting, jobs, ended, lambda: progress(1))
    saved = ((key, _saved(task)) for key, task in planned.items())
    return sorted(Trained(*key, content["rows"], content["ran"]) for key, content in saved)


def _plan(experiment: Experiment, out: str) -> dict[_Key, Task]:
    """In the order of training: a seed after the other, of each the deepest first, for processes to end together."""
    keys = [
        (family, depth, seed)
        for seed in experiment.seeds
        for depth in sorted(experiment.depths, reverse=True)
        for family in FAMILIES
    ]
    tasks = {}
    for family, depth, seed in keys:
        model = f"{family}{depth}"
        folder = os.path.join(out, f"{model}-seed{seed}")
        tasks[family, depth, seed] = Task(settings_of(experiment, model, seed), folder)
    return tasks


def _saved(task: Task) -> dict[str, Any]:
    """`rows`, `ran` and `data` of the epochs in the task's folder; TrainError where they are of other settings.

    As when resuming, the data's folder may be another one.
    """
    if not checkpoint.exists(task.folder):
        return {"rows": [], "ran": [], "data": None}
    saved = checkpoint.load(task.folder)
    try:
        resumed(restored(saved["settings"]), asdict(task.settings))
    except TrainError as error:
        raise TrainError(f"{task.folder}: {error}; name another folder with --out") from error
    return {name: saved[name] for name in ("rows", "ran", "data")}
