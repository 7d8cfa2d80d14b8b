"""``resnet-fused bench``: race fused and its peers on the same weights and photographs."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from typing import Any, Callable, Iterator, Sequence

from ..bench import contenders, environment, result, table
from ..bench.job import CIFAR, MODELS, MODES, Job
from ..bench.process import WorkerFailed
from ..bench.race import run_race
from ..bench.requirements import MissingPackage, require
from ..bench.termination import termination_as_interrupt
from ..models import entry
from .output import listened_to

DEFAULT_MODELS = ("resnet18", "resnet50")
DEFAULT_BUDGET = 255  # seconds; of five minutes this leaves some for starting, reporting and a busy machine
REPORT_JSON, REPORT_PAGE = "result.json", "index.html"
PRIVATE_OPTIONS = ("--json", "--report")  # their values are paths and stay out of the result


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "bench", help="race eager, torch.compile, other engines and fused", allow_abbrev=False,
        description="Race eager NCHW, eager channels_last, torch.compile and fused, and in inference other engines, "
        "on the same weights and the same real photographs, each in a process of its own, round robin. What is asked "
        "for is written after every job, so that a failure or an interrupt leaves what was finished. Exit status 1 "
        "if any numbers are wrong or missing.",
    )
    option = parser.add_argument
    option("--model", nargs="+", choices=(*MODELS, *CIFAR), default=list(DEFAULT_MODELS), metavar="MODEL",
           help=f"among {', '.join((*MODELS, *CIFAR))} (default: {' '.join(DEFAULT_MODELS)})")
    option("--mode", choices=(*MODES, "both"), default="train",
           help="a training step without optimizer, or inference (default: %(default)s)")
    option("--batch", type=positive, default=16, metavar="N", help="images per step (default: %(default)s)")
    option("--image", type=positive, metavar="S", help="height and width (default: 224, CIFAR's networks 32)")
    option("--backend", choices=("auto", "cpu", "library", "reference"), default="auto",
           help="backend of the fused contender (default: %(default)s)")
    option("--contenders", nargs="+", metavar="NAME",
           help=f"who races (default: {' '.join(contenders.DEFAULT['train'])} in train, "
           f"{' '.join(contenders.DEFAULT['infer'])} in infer; there is also compile_nchw); NAME=module:function adds "
           f"your own, a function (model, job) -> module. The engines come with {contenders.INSTALL_PEERS}")
    option("--rounds", type=positive, metavar="R", help="most rounds per job (default: as many as the budget allows)")
    option("--budget", type=positive, metavar="SECONDS",
           help=f"for all jobs together (default: {DEFAULT_BUDGET}, or no limit with --rounds)")
    option("--threads", type=positive, default=environment.cpu_count(), metavar="T",
           help="threads of each contender (default: %(default)s)")
    option("--json", metavar="FILE", help="write the result as JSON")
    option("--report", metavar="DIR", help="write a report page, DIR/index.html, and DIR/result.json")
    parser.set_defaults(run=run, parser=parser)


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """Every model in every mode asked for."""
    modes = MODES if options.mode == "both" else (options.mode,)
    return [
        Job(model, mode, options.batch, options.image or entry(model).image, options.backend, options.threads)
        for model in dict.fromkeys(options.model)
        for mode in modes
    ]


def specs_of(options: argparse.Namespace, mode: str) -> Sequence[str]:
    """The contenders asked for, or the mode's own."""
    return options.contenders or contenders.DEFAULT[mode]


def packages_raced(jobs: Sequence[Job], options: argparse.Namespace) -> list[str]:
    """The packages that the contenders of these jobs brought with them."""
    raced = [spec for job in jobs for spec in contenders.racing(specs_of(options, job.mode), job.mode)]
    return list(dict.fromkeys(package for spec in raced for package in contenders.packages_of(spec)))


def budgets(jobs: Sequence[Job], total: float) -> Iterator[float]:
    """What each job may take: a part by its arithmetic plus an equal part for start-up, of what is left by then."""
    end = time.monotonic() + total
    weights = [job.giga_macs + 20 for job in jobs]  # starting costs as much as 20 GMAC, whatever the model
    for i, weight in enumerate(weights):
        yield max(1.0, end - time.monotonic()) * weight / sum(weights[i:])


def public_command(arguments: Sequence[str], private: Sequence[str] = PRIVATE_OPTIONS) -> str:
    """The command as typed, without the paths of its output."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and not argument.startswith(tuple(f"{name}=" for name in private)):
            skip = argument in private
            if not skip:
                kept.append(argument)
        else:
            skip = False
    return shlex.join(["resnet-fused", *kept])


def check_options(options: argparse.Namespace) -> None:
    """End with usage and status 2 where a contender cannot be meant, before anything is run."""
    specs = options.contenders or ()
    names = [contenders.name_of(spec) for spec in specs]
    if len(set(names)) < len(names):
        options.parser.error("each contender needs a name of its own")
    for spec in specs:
        try:
            contenders.resolve(spec)
        except (ValueError, ImportError, AttributeError) as error:
            options.parser.error(str(error))


def race_all(jobs: Sequence[Job], options: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> None:
    """Run the jobs one after the other behind one progress bar; each is printed and kept as soon as it is finished."""
    tqdm = require("tqdm", "tqdm", "the benchmark's progress bar").tqdm
    total = options.budget or (float("inf") if options.rounds else DEFAULT_BUDGET)
    start = time.monotonic()
    # The bar counts seconds of the budget: how many steps fit is not known before they are run.
    with tqdm(total=total, unit="s", leave=False, disable=None, dynamic_ncols=True,
              bar_format="{desc:<44} |{bar}| {elapsed} of {total:.0f} s") as bar:
        for job, budget in zip(jobs, budgets(jobs, total)):

            def progress(what: str) -> None:
                bar.n = min(time.monotonic() - start, total)
                bar.set_description_str(f"{job.model} {job.mode}: {what}")

            race = run_race(job, specs_of(options, job.mode), budget, options.rounds, progress)
            finished = result.job_result(race)
            keep(finished)
            with listened_to():
                tqdm.write(table.job_table(finished) + "\n", file=sys.stdout)


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Race, print, write, and say by the exit status whether the numbers are right and all there.

    What is finished is printed and written whatever becomes of the rest.
    """
    check_options(options)
    with termination_as_interrupt():
        try:
            check_outputs(options)
        except (MissingPackage, result.Unwritable) as error:
            print(f"resnet-fused bench: {error}", file=sys.stderr)
            return 1
        return race_and_keep(jobs_of(options), options, public_command(arguments))


def race_and_keep(asked: Sequence[Job], options: argparse.Namespace, command: str) -> int:
    """The races, with the files complete after each; the exit status."""
    start = time.time()
    outcome: dict[str, Any] = {
        "schema": result.SCHEMA,
        "command": command,
        "date": time.strftime("%Y-%m-%d", time.gmtime(start)),
        "seconds": 0.0,
        "environment": environment.describe(options.threads, packages_raced(asked, options)),
        "jobs": [],
        "missing": [f"{job.model} {job.mode}" for job in asked],
    }

    def keep(finished: dict[str, Any]) -> None:
        outcome["jobs"].append(finished)
        del outcome["missing"][0]
        outcome["seconds"] = time.time() - start
        write_outputs(outcome, options)

    status, ended = 0, ""
    try:
        try:
            race_all(asked, options, keep)
        except KeyboardInterrupt:
            if outcome["jobs"]:
                write_outputs(outcome, options)  # this may be what was interrupted
            raise
    except KeyboardInterrupt:
        status, ended = 130, "interrupted"
    except (MissingPackage, WorkerFailed, OSError, MemoryError) as error:
        status, ended = 1, f"resnet-fused bench: {str(error) or 'out of memory'}"
    wrong = [sentence for job in outcome["jobs"] for sentence in result.bad(job)]
    for sentence in [table.conclusion(job) for job in outcome["jobs"]] + wrong:
        print(sentence)
    if options.report and outcome["jobs"]:
        print(f"report: {os.path.join(options.report, REPORT_PAGE)}")
    if ended:
        missing = ", ".join(outcome["missing"])
        print(ended + (f"; not finished: {missing}" if missing else ""), file=sys.stderr)
    return status or (1 if wrong else 0)


def check_outputs(options: argparse.Namespace) -> None:
    """MissingPackage or Unwritable before the races, not behind them."""
    result.check_writable(options.json)
    if options.report:
        require("jinja2", "jinja2", "the report page")
        result.check_writable(*(os.path.join(options.report, name) for name in (REPORT_JSON, REPORT_PAGE)))


def write_outputs(outcome: dict[str, Any], options: argparse.Namespace) -> None:
    """The JSON and the report page, where asked for."""
    if options.json:
        result.write_output(options.json, result.to_json(outcome))
    if options.report:
        from ..bench import report

        result.write_output(os.path.join(options.report, REPORT_JSON), result.to_json(outcome))
        result.write_output(os.path.join(options.report, REPORT_PAGE), report.render(outcome))
