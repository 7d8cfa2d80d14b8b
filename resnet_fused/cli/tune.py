"""``resnet-fused tune``: measure ahead of time what the units of a model should run on this machine."""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager
from typing import Any, Iterator, Sequence

import torch

from .. import dispatch, surgery
from ..bench import environment, job
from ..bench.requirements import MissingPackage, require
from ..surgery.tune import units
from .bench import positive

LAYOUTS = {"channels_last": torch.channels_last, "nchw": torch.contiguous_format}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in dispatch.DTYPES}


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "tune", help="measure what each unit of a model should run here", allow_abbrev=False,
        description="Measure our kernels, PyTorch's libraries with our passes around them, and eager PyTorch on every "
        "unit of a model, and remember the times: processes started afterwards run what was fastest. What is known "
        "already is not measured again.",
    )
    option = parser.add_argument
    option("--model", nargs="+", choices=job.MODELS, default=["resnet50"], metavar="MODEL",
           help=f"among {', '.join(job.MODELS)} (default: resnet50)")
    option("--mode", choices=(*job.MODES, "both"), default="both", help="training, inference (default: %(default)s)")
    option("--batch", nargs="+", type=positive, default=[16], metavar="N", help="images per step (default: 16)")
    option("--image", type=positive, default=224, metavar="S", help="height and width (default: %(default)s)")
    option("--layout", choices=LAYOUTS, default="channels_last", help="memory format (default: %(default)s)")
    option("--dtype", choices=DTYPES, default="float32", help="of model and images (default: %(default)s)")
    option("--autocast", choices=("bfloat16", "float16"), help="measure under autocast instead")
    option("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: %(default)s)")
    option("--threads", type=positive, default=environment.cpu_count(), metavar="T",
           help="threads that the model will have on the CPU (default: %(default)s)")
    option("--again", action="store_true", help="measure what is known already too")
    parser.set_defaults(run=run, parser=parser)


def _jobs(options: argparse.Namespace) -> Iterator[job.Job]:
    modes = job.MODES if options.mode == "both" else (options.mode,)
    for model in dict.fromkeys(options.model):
        for batch in dict.fromkeys(options.batch):
            for mode in modes:
                yield job.Job(model, mode, batch, options.image, threads=options.threads)


class _Mistake(ValueError):
    """Something asked for that cannot be measured here; the message says why."""


def _check_device(name: str) -> None:
    try:
        if torch.device(name).type not in ("cpu", "cuda"):
            raise RuntimeError("it is neither cpu nor cuda")
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = " ".join(str(error).split("\n")[0].split())
        raise _Mistake(f"--device {name} cannot be used here: {reason}") from error


def _check_size(which: job.Job) -> None:
    """Of a training step: a batch norm that gets a single value cannot normalise it."""
    with torch.device("meta"):
        model = job.build_model(which)
        images = torch.empty(which.batch, 3, which.image, which.image)
    try:
        model(images)
    except ValueError as error:
        size = f"{which.image}x{which.image}"
        raise _Mistake(f"{which.batch} image of {size} is too small to train {which.model}: name another --image or "
                       "--batch") from error


def _precision(options: argparse.Namespace) -> AbstractContextManager:
    device, dtype = torch.device(options.device).type, DTYPES[options.autocast or "float32"]
    return torch.autocast(device, dtype, enabled=options.autocast is not None)


def tune_job(which: job.Job, options: argparse.Namespace, bar: Any) -> surgery.Explanation:
    """Measure one model in one mode with one batch, moving the bar by one for each of its units."""
    place = {"device": options.device, "dtype": DTYPES[options.dtype], "memory_format": LAYOUTS[options.layout]}
    model = surgery.fuse(job.build_model(which)).to(**place)
    images = torch.randn(which.batch, 3, which.image, which.image).to(**place)
    bar.reset(total=units(model))
    bar.set_description_str(f"{which.model} {which.mode}, batch {which.batch}")
    with torch.set_grad_enabled(which.training), _precision(options):
        return surgery.tune(model, images, options.again, lambda record: bar.update())


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Measure, and print what each unit will run, with the times."""
    try:
        tqdm = require("tqdm", "tqdm", "the progress bar").tqdm
        _check_device(options.device)
        for which in filter(lambda which: which.training, _jobs(options)):
            _check_size(which)
        torch.set_num_threads(options.threads)
        with tqdm(leave=False, disable=None, dynamic_ncols=True) as bar:
            for which in _jobs(options):
                explanation = tune_job(which, options, bar)
                tqdm.write(f"{which.model} {which.mode}, batch {which.batch}\n{explanation}\n", file=sys.stdout)
    except (MissingPackage, _Mistake) as error:
        print(f"resnet-fused tune: {error}", file=sys.stderr)
        return 1
    print(f"remembered in {dispatch.table_path()}")
    return 0
