"""``resnet-fused degradation``: do deeper networks train worse, without shortcuts and with them?"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any, Sequence

from ..bench import environment
from ..bench.requirements import MissingPackage, require
from ..bench.result import to_json, write_atomically
from ..train import TrainError, degradation
from ..train.settings import SCHEDULES
from .bench import positive, public_command
from .output import listened_to

NAME = "degradation"  # of the files written, and of the command
SCHEMA = 2
DEFAULT_DEPTHS = (20, 56)
DEFAULT_SEEDS = 3
ASKED = ("data", "epochs", "image", "batch", "lr", "schedule", "warmup", "weight_decay", "eager", "device")


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        NAME, help="train plain and residual networks of growing depth, and compare their errors", allow_abbrev=False,
        description="Train plain and residual networks of some depths from the same seeds on the same images; draw "
        "training and test errors against iterations and depth (He et al. 2016, figures 1 and 6), and say in words "
        "whether depth made training worse. Its defaults took 17 minutes of one core, shared by two. The same command "
        "goes on where it was interrupted. Nothing is downloaded.",
    )
    option = parser.add_argument
    option("--out", required=True, metavar="DIR",
           help=f"where {NAME}.svg, .csv and .json are written, and a folder for each network and seed")
    option("--data", default="digits", metavar="DATA", help="as of train (default: %(default)s)")
    option("--depths", nargs="+", type=int, choices=degradation.DEPTHS, default=DEFAULT_DEPTHS, metavar="D",
           help=f"layers, two or more of {', '.join(map(str, degradation.DEPTHS))} (default: 20 56)")
    option("--seeds", type=positive, default=DEFAULT_SEEDS, metavar="N",
           help="how many, from 0 on (default: %(default)s)")
    option("--jobs", type=positive, default=environment.cpu_count(), metavar="N",
           help="networks trained at a time, each by one thread (default: %(default)s, the cores)")
    left = argparse.SUPPRESS  # what is not given is decided by the kind of data
    option("--epochs", type=positive, default=left, metavar="N", help="default: digits 25, others as of train")
    option("--batch", type=positive, default=left, metavar="N", help="default: as of train")
    option("--image", type=positive, default=left, metavar="S", help="height and width (default: as of train)")
    option("--lr", type=float, default=left, metavar="R", help="default: digits 0.05, others as of train")
    option("--schedule", choices=SCHEDULES, default=left, help="default: as of train")
    option("--warmup", type=float, default=left, metavar="E",
           help="default: digits 2, others as of train; at most all epochs except the last")
    option("--weight-decay", type=float, default=left, metavar="D", help="default: as of train")
    option("--eager", action="store_true", default=left, help="the same networks unfused")
    option("--device", default=left, metavar="D", help="default: cpu")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Train, write and draw what was found, and say it; exit status 0 whichever way it went."""
    depths = sorted(set(options.depths))
    if len(depths) < 2:
        options.parser.error("--depths: two are needed to compare")
    given = {name: getattr(options, name) for name in ASKED if hasattr(options, name)}
    experiment = degradation.Experiment(given, depths, range(options.seeds))
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise TrainError("it starts the processes that it needs: call it without torchrun")
        require("matplotlib.figure", "matplotlib", "the figure", extra="train")  # before the training
        with degradation.opened(experiment, options.out):
            trained = _train(experiment, options)
            result = _result(experiment, trained, _public(options, arguments))
            _write(options.out, trained, result)
    except (TrainError, MissingPackage) as error:
        print(f"resnet-fused {NAME}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"resnet-fused {NAME}: {options.out} cannot be written to: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after the last finished epochs", file=sys.stderr)
        return 130
    print(f"\n{degradation.table(degradation.finals(trained))}\n{degradation.machines(result['environments'])}\n")
    print("\n".join(result["findings"]))
    print(f"{NAME}.svg, {NAME}.csv and {NAME}.json are in {options.out}")
    return 0


def _train(experiment: degradation.Experiment, options: argparse.Namespace) -> list[degradation.Trained]:
    tqdm = require("tqdm", "tqdm", "the progress bar", extra="train").tqdm
    epochs = degradation.public_settings(experiment)["epochs"]
    total = 2 * len(experiment.depths) * len(experiment.seeds) * epochs
    with tqdm(total=total, unit="epoch", leave=False, disable=None, dynamic_ncols=True) as bar:

        def say(line: str) -> None:
            with listened_to():
                tqdm.write(line, file=sys.stdout)

        return degradation.train(experiment, options.out, options.jobs, say, bar.update)


def _public(options: argparse.Namespace, arguments: Sequence[str]) -> str:
    """The command as typed, without the paths of its output and of the data."""
    kind, colon, _ = options.data.partition(":")
    data = ["--data", f"{kind}:DIR" if colon else kind] if any(text.startswith("--data") for text in arguments) else []
    return " ".join([public_command(arguments, private=("--out", "--data")), *data])


def _result(experiment: degradation.Experiment, trained: list[degradation.Trained], command: str) -> dict[str, Any]:
    """Ready for JSON."""
    ends = degradation.finals(trained)
    comparisons = degradation.compare(ends)
    return {
        "schema": SCHEMA,
        "command": command,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": sum(row["seconds"] for one in trained for row in one.rows),  # of one core; jobs share the time
        "environments": degradation.environments(trained),
        "settings": degradation.public_settings(experiment),
        "seeds": list(experiment.seeds),
        "networks": [end._asdict() for end in ends],
        "comparisons": [{**c._asdict(), "verdict": c.verdict} for c in comparisons],
        "findings": degradation.sentences(comparisons),
    }


def _write(out: str, trained: list[degradation.Trained], result: dict[str, Any]) -> None:
    from ..train.degradation.chart import svg

    contents = {"svg": svg(trained), "csv": degradation.csv_of(trained), "json": to_json(result)}
    for ending, text in contents.items():
        write_atomically(os.path.join(out, f"{NAME}.{ending}"), text)
