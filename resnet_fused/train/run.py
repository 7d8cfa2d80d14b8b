"""A run from its settings to its results."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict
from typing import Any, Callable, Mapping, NamedTuple

import torch
from torch import nn

from resnet_fused import models
from resnet_fused.bench import environment
from resnet_fused.bench.requirements import require
from resnet_fused.dispatch import EAGER, backend
from resnet_fused.train import batches, board, checkpoint, data, loop, metrics, optimise, plot
from resnet_fused.train.settings import Settings, TrainError, complete, differences, restored, resumed


class Place(NamedTuple):
    """What does not decide a run's numbers, but for the order of additions, which depends on the threads.

    threads: None for one with digits, whose steps are too short to share, else for all processors; of a run that goes
    on, for as many as it had.
    """

    out: str
    resume: bool = False
    threads: int | None = None
    workers: int = 0
    tensorboard: bool = False


class Outcome(NamedTuple):
    """rows: of metrics.FIELDS, one for each epoch done; interrupted: whether there were more to do."""

    rows: list[dict[str, Any]]
    settings: Settings
    interrupted: bool


class _Run(NamedTuple):
    settings: Settings
    place: Place
    data: data.Data
    state: optimise.State
    model: nn.Module  # what is called: the network, or what wraps it
    rows: list[dict[str, Any]]
    watch: Callable[[metrics.Row], None]


def run(given: Mapping[str, Any], place: Place, say: Callable[[str], Any] = print) -> Outcome:
    """Trains as the given settings and the data's defaults say, or goes on where a checkpoint ends.

    given: fields of Settings by name; when resuming they may be left out. say: is told a line for each epoch. Writes
    checkpoint.pt, metrics.csv and plot.svg into place.out. A KeyboardInterrupt ends the run after the last epoch that
    was finished. Sets torch's number of threads. Raises TrainError and MissingPackage, each with one sentence for the
    user.
    """
    going = _prepare(given, place)
    settings, interrupted = going.settings, False
    unfused = backend(EAGER) if settings.eager else contextlib.nullcontext()
    with unfused:
        try:
            for epoch in range(len(going.rows) + 1, settings.epochs + 1):
                row = _epoch(going, epoch)
                _save(going, [*going.rows, row])
                going.rows.append(row)
                going.watch(row)
                say(metrics.line(row, settings.epochs))
        except KeyboardInterrupt:
            interrupted = True
    if going.rows:
        _written(plot.write, place.out, going.rows, _title(settings))
    return Outcome(going.rows, settings, interrupted)


def _title(settings: Settings) -> str:
    return f"{settings.model} on {settings.kind}, {'eager' if settings.eager else 'fused'}, {settings.precision}"


def _prepare(given: Mapping[str, Any], place: Place) -> _Run:
    """All that can fail for the user's mistakes fails here, before hours of training."""
    for module, package in (("torchvision", "torchvision"), ("tqdm", "tqdm"), ("matplotlib.figure", "matplotlib")):
        require(module, package, "training", extra="train")
    saved = checkpoint.load(place.out) if place.resume else None
    if saved is not None:
        settings = resumed(restored(saved["settings"]), given)
    else:
        settings = complete(given)
        _refuse_another_run(settings, place.out)
    _check_device(settings)
    usual = 1 if settings.kind == "digits" else environment.cpu_count()
    torch.set_num_threads(place.threads or (usual if saved is None else saved["threads"]))
    read = data.load(settings)
    steps = len(read.train) // settings.batch
    if steps == 0:
        raise TrainError(f"--batch {settings.batch} is more than the {len(read.train)} images there are to train with")
    state = optimise.build(settings, len(read.classes), steps)
    _check_size(settings, state.network)
    rows: list[dict[str, Any]] = []
    if saved is not None:
        _restore(saved, state, read, place.out)
        rows = saved["rows"]
    _make_folder(place.out)
    watch = board.writer(place.out, len(rows)) if place.tensorboard else lambda row: None
    if saved is not None:
        _written(metrics.write, place.out, rows)  # the process may have died between the checkpoint and the table
    return _Run(settings, place, read, state, state.network, rows, watch)


def _refuse_another_run(settings: Settings, out: str) -> None:
    if not checkpoint.exists(out):
        return
    differing = differences(restored(checkpoint.load(out)["settings"]), settings)
    what = f"with other settings ({', '.join(differing)})" if differing else "with these settings"
    go_on = "" if differing else "go on with --resume, or "
    raise TrainError(f"{out} holds another run's checkpoint, {what}: {go_on}name another folder with --out")


def _check_device(settings: Settings) -> None:
    try:
        if torch.device(settings.device).type not in ("cpu", "cuda"):
            raise RuntimeError("it is neither cpu nor cuda")
        torch.empty(1, device=settings.device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = " ".join(str(error).split("\n")[0].split())
        raise TrainError(f"--device {settings.device} cannot be used here: {reason}") from error


def _check_size(settings: Settings, network: nn.Module) -> None:
    try:
        models.layers(network, (settings.batch, 3, settings.image, settings.image))
    except RuntimeError as error:
        size = f"{settings.image}x{settings.image}"
        raise TrainError(f"images of {size} are too small for {settings.model}: name another --image") from error


def _make_folder(out: str) -> None:
    try:
        os.makedirs(out, exist_ok=True)
    except OSError as error:
        raise TrainError(f"the folder {out} cannot be made: {error.strerror}") from error


def _restore(saved: dict[str, Any], state: optimise.State, read: data.Data, out: str) -> None:
    ours = {"classes": list(read.classes), "training images": len(read.train), "test images": len(read.test)}
    differing = [name for name, value in ours.items() if saved["data"][name] != value]
    if differing:
        raise TrainError(f"cannot resume with other data: the {' and the '.join(differing)} are not those of {out}")
    state.load_state_dict(saved["state"])
    checkpoint.restore_random_states(saved["random"])


def _save(going: _Run, rows: list[dict[str, Any]]) -> None:
    """The checkpoint first: the table is made of it when resuming."""
    read, out = going.data, going.place.out
    checkpoint.save(out, {
        "epoch": len(rows),
        "settings": asdict(going.settings),
        "data": {
            "classes": list(read.classes), "training images": len(read.train), "test images": len(read.test),
        },
        "state": going.state.state_dict(),
        "random": checkpoint.random_states(),
        "rows": rows,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    })  # fmt: skip
    _written(metrics.write, out, rows)


def _written(write: Callable[..., None], out: str, *content: Any) -> None:
    try:
        write(out, *content)
    except OSError as error:
        raise TrainError(f"the folder {out} cannot be written to: {error.strerror}") from error


def _epoch(going: _Run, epoch: int) -> dict[str, Any]:
    """Trains and tests; → the epoch's row. Raises TrainError where the loss is no number any more."""
    settings = going.settings
    how = batches.Loading(going.place.workers, pinned=torch.device(settings.device).type == "cuda")
    tqdm = require("tqdm", "tqdm", "the progress bar", extra="train").tqdm
    start = time.perf_counter()
    steps = len(going.data.train) // settings.batch
    with tqdm(total=steps * settings.batch, unit="img", unit_scale=True, leave=False, disable=None,
              dynamic_ncols=True, desc=f"epoch {epoch}/{settings.epochs}") as bar:  # fmt: skip
        loaded = batches.training(going.data, settings.batch, settings.seed, epoch, settings.mixup, how)
        trained = loop.train_epoch(going.model, going.state, loaded, settings, bar.update)
    middle = time.perf_counter()
    if not trained.loss < float("inf"):
        raise TrainError(f"the loss became {trained.loss} in epoch {epoch}: try a smaller --lr or a longer --warmup")
    tested = loop.evaluate(going.model, batches.testing(going.data, how), settings)
    row = {
        "epoch": epoch,
        "step": epoch * steps,
        "lr": going.state.scheduler.get_last_lr()[0],
        "train_loss": trained.loss,
        "train_accuracy": trained.accuracy,
        "test_loss": tested.loss,
        "test_accuracy": tested.accuracy,
        "images_per_second": steps * settings.batch / (middle - start),
    }
    if going.state.average is not None:
        averaged = loop.evaluate(going.state.average, batches.testing(going.data, how), settings)
        row[metrics.EMA] = averaged.accuracy
    return {**row, "seconds": time.perf_counter() - start}
