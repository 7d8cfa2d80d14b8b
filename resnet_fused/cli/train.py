"""``resnet-fused train``: train a network on data that lie on this machine, fused or eager."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Any, Sequence

from ..bench import environment
from ..bench.requirements import MissingPackage
from ..bench.termination import termination_as_interrupt
from ..models import list_models
from ..train import Outcome, Place, SaidElsewhere, TrainError, metrics, run as train
from ..train.parallel import DDP, KINDS as PARALLEL
from ..train.settings import DATA, LAYOUTS, PRECISIONS, SCHEDULES
from .bench import positive
from .output import listened_to


def add_parser(commands: Any) -> None:
    """Register the subcommand. What is not given has no value here: the data's kind, or the checkpoint, decides."""
    parser = commands.add_parser(
        "train", help="train a network on data that lie on this machine", allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        description="Train a network by SGD with Nesterov's momentum. Every epoch is saved; --resume goes on where "
        "the last one ended, on a CPU to the same numbers bit for bit; Ctrl-C and SIGTERM end the run after it, with "
        "exit status 130. Nothing is downloaded. Exit status 1, with a sentence, for data or a checkpoint that cannot "
        "be used. Started by torchrun, its processes share every batch: "
        "torchrun --nproc-per-node 4 -m resnet_fused train …",
    )
    _add_settings(parser.add_argument)
    option = parser.add_argument
    option("--out", required=True, metavar="DIR", help="where checkpoint.pt, metrics.csv and plot.svg are written")
    option("--resume", action="store_true", default=False,
           help="go on with the run in --out, whose settings hold; with --data, begin it if no epoch was saved yet")
    option("--threads", type=positive, default=None, metavar="T",
           help=f"on the CPU (default: {environment.cpu_count()}, shared by a machine's processes; digits 1: their "
           "steps are too short to share)")
    option("--workers", type=_count, default=0, metavar="W",
           help="processes that load and augment images, 0: this one (default: 0); they change no number")
    option("--tensorboard", action="store_true", default=False, help="write DIR/tensorboard too")
    option("--parallel", choices=PARALLEL, default=DDP,
           help="of several processes: ddp, each has the network, or fsdp, each has a shard of it (default: ddp)")
    option("--timeout", type=_seconds, default=Place._field_defaults["timeout"], metavar="S",
           help="seconds that processes wait for one another before the run ends (default: %(default)g)")
    parser.set_defaults(run=run)


def _add_settings(option: Any) -> None:
    option("--data", metavar="DATA", help="digits (1,797 handwritten digits of scikit-learn), images:demo (pieces of "
           "photographs, to be told apart), cifar10:DIR, cifar100:DIR, or folder:DIR with DIR/train and "
           "DIR/val, a folder of images for each class in them")
    option("--model", choices=list_models(), metavar="MODEL",
           help=f"among {', '.join(list_models())} (default: resnet20, for folders resnet18)")
    option("--image", type=positive, metavar="S", help="height and width (default: digits 16, folders the model's, "
           "others 32)")
    option("--epochs", type=positive, metavar="N", help="default: digits and images:demo 15, CIFAR 200, folders 90")
    option("--batch", type=positive, metavar="N", help="images per step (default: 32, CIFAR 128, folders 64)")
    option("--lr", type=float, metavar="R", help="highest learning rate (default: 0.1, folders 0.025)")
    option("--schedule", choices=SCHEDULES,
           help="cosine, step (a tenth after half and three quarters of the epochs) or constant (default: cosine)")
    option("--warmup", type=float, metavar="E",
           help="epochs in which the rate rises (default: 5, digits and images:demo 1, but at most all epochs except "
           "the last)")
    option("--momentum", type=float, metavar="M", help="Nesterov's (default: 0.9)")
    option("--weight-decay", type=float, metavar="D", help="default: 5e-4, folders 1e-4")
    option("--no-bias-decay", action="store_true", help="do not decay batch norms and biases")
    option("--label-smoothing", type=float, metavar="E", help="default: 0")
    option("--mixup", type=float, metavar="A", help="mix pairs of images by Beta(A, A) (default: 0, none)")
    option("--ema", type=float, metavar="D", help="keep an average of the weights too, of decay D (default: 0, none)")
    option("--precision", choices=PRECISIONS, help="by autocast (default: float32)")
    option("--layout", choices=LAYOUTS, help="memory format (default: channels_last)")
    option("--eager", action="store_true", help="the same network unfused, from the same weights")
    option("--sync-bn", action="store_true", help="batch norms by the statistics of all processes' images together")
    option("--device", metavar="D", help="cpu, cuda, cuda:1, … (default: cpu)")
    option("--seed", type=_count, metavar="N", help="of weights, order and augmentation (default: 0)")


def _count(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _seconds(text: str) -> float:
    """More than 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Train, and say how well it went and where things lie; or in one sentence why it could not."""
    given = {name: value for name, value in vars(options).items() if name not in (*Place._fields, "run", "command")}
    try:
        if "data" not in given and not options.resume:
            raise TrainError(f"--data is missing: {DATA}")
        place = Place(**{name: getattr(options, name) for name in Place._fields})
        with termination_as_interrupt():
            outcome = train(given, place, _say)
        return _end(outcome, options.out)
    except SaidElsewhere:
        return 1
    except (TrainError, MissingPackage) as error:
        print(f"resnet-fused train: {error}", file=sys.stderr)
        return 1


def _end(outcome: Outcome, out: str) -> int:
    """Says how a run ended → its exit status."""
    if not outcome.first:
        return 130 if outcome.interrupted else 0
    if outcome.interrupted:
        done = len(outcome.rows)
        alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
        command = f"resnet-fused train --resume --out {shlex.quote(out)}"
        again = f"go on with {command}" if alone else "go on with the same command and --resume"
        how = again if done else "no epoch was finished"
        print(f"interrupted after {done} of {outcome.settings.epochs} epochs; {how}", file=sys.stderr)
        return 130
    _say(metrics.summary(outcome.rows, out))
    return 0


def _say(line: str) -> None:
    with listened_to():
        print(line)
