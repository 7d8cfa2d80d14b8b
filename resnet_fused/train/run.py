"""A run from its settings to its results, in one process or in each of several."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from dataclasses import asdict
from typing import Any, Callable, Iterator, Mapping, NamedTuple

import torch
from torch import nn

from resnet_fused import models
from resnet_fused.bench import environment
from resnet_fused.bench.requirements import require
from resnet_fused.dispatch import EAGER, backend
from resnet_fused.train import batches, board, checkpoint, data, folder_lock, loop, metrics, optimise, parallel, plot
from resnet_fused.train.processes import Processes, joined
from resnet_fused.train.settings import Settings, TrainError, complete, differences, restored, resumed


class Place(NamedTuple):
    """What does not decide a run's numbers, but for the order of additions, which depends on the threads.

    threads: None for one with digits, whose steps are too short to share, else for this process's share of all
    processors; of a run that goes on in as many processes, for as many as it had. parallel: of parallel.KINDS, and
    timeout: seconds to wait for one another, where torchrun started several processes.
    """

    out: str
    resume: bool = False
    threads: int | None = None
    workers: int = 0
    tensorboard: bool = False
    parallel: str = parallel.DDP
    timeout: float = 600.0


class Outcome(NamedTuple):
    """rows: of metrics.FIELDS, one for each epoch done; interrupted: whether there were more to do; first: whether this
    is the process that wrote the files."""

    rows: list[dict[str, Any]]
    settings: Settings
    interrupted: bool
    first: bool = True


class _Run(NamedTuple):
    settings: Settings
    place: Place
    ranks: Processes
    data: data.Data
    state: optimise.State
    model: nn.Module  # what is called: the network, or what wraps it
    rows: list[dict[str, Any]]
    ran: list[dict[str, Any]]  # on what, since which epoch
    watch: Callable[[metrics.Row], Any] = lambda row: None


def run(given: Mapping[str, Any], place: Place, say: Callable[[str], Any] = print) -> Outcome:
    """Trains as the given settings and the data's defaults say, or goes on where a checkpoint ends.

    given: fields of Settings by name; when resuming they may be left out. With them, place.resume begins the run where
    no epoch was saved yet. say: is told a line for each epoch, and one where a run to resume begins. Writes
    checkpoint.pt, metrics.csv and plot.svg into place.out. A KeyboardInterrupt ends the run after the last epoch that
    was finished. Sets torch's number of threads. Raises TrainError and MissingPackage, each with one sentence for the
    user.

    In the processes that torchrun starts, which must all see the same folders, each trains with a portion of every
    batch, by the gradient of the joined batch. Batch norms see the portion alone, but with sync_bn. The first process
    writes and says; the others' errors are SaidElsewhere where the first has one too. It locks place.out: a second run
    there raises TrainError and leaves the folder alone.
    """
    with joined(place.timeout) as ranks, contextlib.ExitStack() as held:
        going = ranks.together(functools.partial(_prepare, given, place, ranks, held))
        _check_agreement(going)
        going = going._replace(watch=ranks.together(functools.partial(_open, going, held)))
        if place.resume and not going.rows and ranks.first:
            say(f"no epoch is in {place.out} yet: the run begins")
        if ranks.size > 1 and place.parallel == parallel.DDP:
            going = going._replace(model=parallel.replicated(going.model, going.settings, ranks))
        try:
            return _train(going, say)
        except ValueError as error:
            if "SyncBatchNorm" not in str(error):
                raise
            model = going.settings.model
            raise ranks.failure(f"--sync-bn with {model} needs GPUs: not all of its batch norms are fused") from error


def _check_agreement(going: _Run) -> None:
    """Processes that do not take the same steps would wait for each other in vain."""
    ranks, read, out = going.ranks, going.data, going.place.out
    if not ranks.agree(going.settings):
        raise ranks.failure("the processes were started with different settings")
    if not ranks.agree(len(going.rows)):
        raise ranks.failure(f"the processes see different checkpoints: {out} must be a folder that all share")
    if not ranks.agree((len(read.train), len(read.test), list(read.classes))):
        raise ranks.failure("the processes see different data: all must have the same images")


def _train(going: _Run, say: Callable[[str], Any]) -> Outcome:
    settings, place, interrupted = going.settings, going.place, False
    unfused = backend(EAGER) if settings.eager else contextlib.nullcontext()
    try:
        with unfused:
            for epoch in range(len(going.rows) + 1, settings.epochs + 1):
                row = _epoch(going, epoch)
                _save(going, [*going.rows, row])
                going.rows.append(row)
                if going.ranks.first:
                    with _writing(place.out):
                        going.watch(row)
                    say(metrics.line(row, settings.epochs))
    except KeyboardInterrupt:
        interrupted = True
    if going.rows and going.ranks.first:
        with _writing(place.out):
            plot.write(place.out, going.rows, _title(settings))
    return Outcome(going.rows, settings, interrupted, going.ranks.first)


def _title(settings: Settings) -> str:
    return f"{settings.model} on {settings.kind}, {'eager' if settings.eager else 'fused'}, {settings.precision}"


def _prepare(given: Mapping[str, Any], place: Place, ranks: Processes, held: contextlib.ExitStack) -> _Run:
    """All that can fail for the user's mistakes fails here, before hours of training; without a word to the other
    processes, which may have failed. held: where locks go."""
    found = place.resume and checkpoint.exists(place.out)
    if found and ranks.first:
        held.enter_context(folder_lock.locked(place.out))  # before it is read, by whose writer it may be replaced
    for module, package in (("torchvision", "torchvision"), ("tqdm", "tqdm"), ("matplotlib.figure", "matplotlib")):
        require(module, package, "training", extra="train")
    if place.resume and not found:
        _check_beginning(given, place.out)
    saved = checkpoint.load(place.out) if found else None
    if saved is not None:
        settings = resumed(restored(saved["settings"]), given)
    else:
        settings = complete(given)
        _refuse_another_run(settings, place.out)
    _check_device(settings, ranks)
    torch.set_num_threads(place.threads or _usual_threads(settings, saved, ranks))
    read = data.load(settings)
    steps = len(read.train) // settings.batch
    if steps == 0:
        raise TrainError(f"--batch {settings.batch} is more than the {len(read.train)} images there are to train with")
    _check_portions(settings, read, ranks)
    _check_size(settings, len(read.classes), ranks)
    sharded = ranks.size > 1 and place.parallel == parallel.FSDP
    shard = [functools.partial(parallel.shard, settings=settings, ranks=ranks)] if sharded else []
    state = optimise.build(settings, len(read.classes), steps, *shard)
    rows: list[dict[str, Any]] = []
    if saved is not None:
        _restore(saved, state, read, place.out)
        rows = saved["rows"]
    return _Run(settings, place, ranks, read, state, state.network, rows, _ran(saved, settings))


def _ran(saved: dict[str, Any] | None, settings: Settings) -> list[dict[str, Any]]:
    """What the run ran on, since which epoch; this process's machine last."""
    ran = [] if saved is None else saved["ran"]
    here = environment.describe()
    if torch.device(settings.device).type == "cuda":
        here["gpu"] = torch.cuda.get_device_name(settings.device)
    if ran and ran[-1]["environment"] == here:
        return ran
    return [*ran, {"from_epoch": 1 if saved is None else saved["epoch"] + 1, "environment": here}]


def _open(going: _Run, held: contextlib.ExitStack) -> Callable[[metrics.Row], Any]:
    """Makes the folder, completes its table, and gives what is to be told each epoch's row; by the first process."""
    place, rows = going.place, going.rows
    if not going.ranks.first:
        return going.watch
    _make_folder(place.out)
    if not rows:
        held.enter_context(folder_lock.locked(place.out))
        _refuse_another_run(going.settings, place.out)  # which may have begun since
    with _writing(place.out):
        watch = board.writer(place.out, len(rows)) if place.tensorboard else going.watch
        if rows:
            metrics.write(place.out, rows)  # the process may have died between the checkpoint and the table
    return watch


def _usual_threads(settings: Settings, saved: dict[str, Any] | None, ranks: Processes) -> int:
    if saved is not None and saved["processes"] == ranks.size:
        return saved["threads"]
    return 1 if settings.kind == "digits" else max(1, environment.cpu_count() // ranks.local_size)


def _refuse_another_run(settings: Settings, out: str) -> None:
    if not checkpoint.exists(out):
        return
    differing = differences(restored(checkpoint.load(out)["settings"]), settings)
    what = f"with other settings ({', '.join(differing)})" if differing else "with these settings"
    go_on = "" if differing else "go on with --resume, or "
    raise TrainError(f"{out} holds another run's checkpoint, {what}: {go_on}name another folder with --out")


def _check_beginning(given: Mapping[str, Any], out: str) -> None:
    """--resume begins a run that died before its first checkpoint, but not where something else may be meant."""
    ours = {folder_lock.NAME, board.NAME, checkpoint.PARTIAL, checkpoint.NAME}  # the last: if it is there since
    try:
        others = set(os.listdir(out)) - ours
    except FileNotFoundError:
        others = set()
    except OSError as error:
        raise checkpoint.missing(out) from error
    if others or "data" not in given:
        raise checkpoint.missing(out)


def _check_device(settings: Settings, ranks: Processes) -> None:
    try:
        device = torch.device(settings.device)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("it is neither cpu nor cuda")
        if device.type == "cuda" and ranks.size > 1:
            if device.index is not None:
                raise RuntimeError("of several processes each takes a GPU of its own, say cuda")
            torch.cuda.set_device(ranks.local_rank)
        torch.empty(1, device=settings.device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = " ".join(str(error).split("\n")[0].split())
        raise TrainError(f"--device {settings.device} cannot be used here: {reason}") from error


def _check_portions(settings: Settings, read: data.Data, ranks: Processes) -> None:
    for what, images in ((f"--batch {settings.batch}", settings.batch), ("the test images", len(read.test))):
        if images < ranks.size:
            raise TrainError(f"{what} cannot be shared among {ranks.size} processes: each needs an image")
    if settings.sync_bn and settings.eager and ranks.size > 1 and torch.device(settings.device).type == "cpu":
        raise TrainError("--sync-bn with --eager needs GPUs: PyTorch's own SyncBatchNorm does not run on a CPU")


def _check_size(settings: Settings, classes: int, ranks: Processes) -> None:
    with torch.device("meta"):
        network = models.create(settings.model, num_classes=classes)
    size = f"{settings.image}x{settings.image}"
    try:
        models.layers(network, (settings.batch, 3, settings.image, settings.image))
    except RuntimeError as error:
        raise TrainError(f"images of {size} are too small for {settings.model}: name another --image") from error
    if settings.batch // ranks.size == 1 and not (settings.sync_bn and ranks.size > 1):
        try:
            network(torch.empty(1, 3, settings.image, settings.image, device="meta"))
        except ValueError as error:  # from a batch norm
            raise TrainError(
                f"one image of {size} at a time is too little for the batch norms of {settings.model}: "
                f"name a larger --batch or --image"
            ) from error


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
    """The checkpoint first: the table is made of it when resuming. Shards are gathered from all processes."""
    read, out, state = going.data, going.place.out, going.state.state_dict()
    if not going.ranks.first:
        return
    checkpoint.save(out, {
        "epoch": len(rows),
        "settings": asdict(going.settings),
        "data": {
            "classes": list(read.classes), "training images": len(read.train), "test images": len(read.test),
        },
        "state": state,
        "random": checkpoint.random_states(),
        "rows": rows,
        "ran": going.ran,
        "threads": torch.get_num_threads(),
        "processes": going.ranks.size,
        "torch": str(torch.__version__),
    })  # fmt: skip
    with _writing(out):
        metrics.write(out, rows)


@contextlib.contextmanager
def _writing(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainError(f"the folder {out} cannot be written to: {error.strerror or error}") from error


def _epoch(going: _Run, epoch: int) -> dict[str, Any]:
    """Trains and tests; → the epoch's row. Raises TrainError where the loss is no number any more."""
    settings, state, ranks = going.settings, going.state, going.ranks
    how = batches.Loading(going.place.workers, pinned=torch.device(settings.device).type == "cuda")
    tqdm = require("tqdm", "tqdm", "the progress bar", extra="train").tqdm
    start = time.perf_counter()
    steps = len(going.data.train) // settings.batch
    if not ranks.first:  # other masks of dropout than the first process's, whatever was drawn before
        torch.manual_seed(batches.derived("process", settings.seed, ranks.rank, epoch))
    with tqdm(total=steps * settings.batch, unit="img", unit_scale=True, leave=False, disable=not ranks.first or None,
              dynamic_ncols=True, desc=f"epoch {epoch}/{settings.epochs}") as bar:  # fmt: skip
        loaded = batches.training(going.data, settings.batch, settings.seed, epoch, settings.mixup, how, ranks)
        # The bar shows joined batches, whatever this portion was.
        trained = loop.train_epoch(
            going.model, state, loaded, settings, lambda _: bar.update(settings.batch), ranks
        )
    middle = time.perf_counter()
    if not trained.loss < float("inf"):
        raise ranks.failure(f"the loss became {trained.loss} in epoch {epoch}: try a smaller --lr or a longer --warmup")
    networks = [network for network in (state.network, state.average) if network is not None]
    for network in networks:
        ranks.share_buffers(network)
    tested, *averaged = (
        loop.evaluate(network, batches.testing(going.data, how, ranks), settings, ranks) for network in networks
    )
    row = {
        "epoch": epoch,
        "step": epoch * steps,
        "lr": settings.lr * optimise.rate(settings, (epoch * steps - 1) / steps),
        "train_loss": trained.loss,
        "train_accuracy": trained.accuracy,
        "test_loss": tested.loss,
        "test_accuracy": tested.accuracy,
        "images_per_second": steps * settings.batch / (middle - start),
    }
    if averaged:
        row[metrics.EMA] = averaged[0].accuracy
    return {**row, "seconds": time.perf_counter() - start}
