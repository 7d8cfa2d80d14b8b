"""``python -m gpu_check``, with benchmarks/ on PYTHONPATH: what ``make gpu-check`` runs."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Sequence

from . import plan, process
from .plan import Settings

DESCRIPTION = "Builds for the GPU of this machine, tests, and races the CUDA kernels against eager and torch.compile."
BUDGET = 540


def expression(text: str) -> str:
    """A regular expression, for argparse."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error
    return text


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check", description=DESCRIPTION, allow_abbrev=False)
    option = parser.add_argument
    option("--budget", type=float, default=BUDGET, metavar="SECONDS", help="in all (default: %(default)s)")
    option("--quick", action="store_true", help="only the build, a few tests and a race of each model")
    option("--only", type=expression, default="", metavar="REGEX",
           help="besides the build, parts whose name has a match of this regular expression")  # fmt: skip
    option("--resume", type=Path, metavar="FILE", help="go on with a result: what it has is not run again")
    option("--folder", type=Path, metavar="DIR",
           help="of the result (default: benchmarks/results; build/gpu_check of a rehearsal)")  # fmt: skip
    option("--contender", action="append", default=[], metavar="NAME=module:function", help="one more in every race")
    option("--without-build", action="store_true", help="the extensions are used as they are")
    option("--without-compile", action="store_true", help="torch.compile, which takes minutes, does not race")
    option("--emulated", action="store_true", help="the same on the CPU, by the emulator, on tiny images: a rehearsal")
    return parser.parse_args(arguments)


def command(options: argparse.Namespace) -> str:
    """What was run, without the paths of its output."""
    words = ["python", "-m", "gpu_check"]
    for name in ("emulated", "quick", "without-build", "without-compile"):
        words += [f"--{name}"] if getattr(options, name.replace("-", "_")) else []
    words += ["--budget", f"{options.budget:g}"]
    words += ["--only", options.only] if options.only else []
    words += [word for spec in options.contender for word in ("--contender", spec)]
    return shlex.join(words)


def chosen(options: argparse.Namespace, settings: Settings) -> list[plan.Part]:
    parts = [part for part in plan.parts(settings) if part.kind != "facts" and (part.quick or not options.quick)]
    return [part for part in parts
            if (not options.without_build if part.kind == "build" else re.search(options.only, part.name))]  # fmt: skip


def folder_of(options: argparse.Namespace) -> Path:
    return options.folder or process.ROOT / ("build/gpu_check" if options.emulated else "benchmarks/results")


def package_imports(settings: Settings) -> bool:
    """Whether the package can be imported, after a build where extensions of another torch are in the way."""
    try:
        from . import runner  # noqa: F401
    except ImportError as error:
        print(f"building first: {error}")
        part = next(part for part in plan.parts(settings) if part.kind == "build")
        outcome = process.run(part, settings, part.limit, lambda message: None)
        if outcome.status != "done":
            print(f"gpu_check: {outcome.error}\n{outcome.log[-2000:]}", file=sys.stderr)
            return False
    return True


def facts(settings: Settings) -> dict[str, Any] | None:
    """Of the device; None, and words on stderr, where there is none."""
    heard: dict[str, Any] = {}
    part = next(part for part in plan.parts(settings) if part.kind == "facts")
    outcome = process.run(part, settings, part.limit, lambda message: heard.update(message))
    if outcome.status == "done":
        return heard["result"]
    print(f"gpu_check: {outcome.error}", file=sys.stderr)
    return None


def main(arguments: Sequence[str]) -> int:
    options = options_of(arguments)
    deadline = time.monotonic() + options.budget
    settings = plan.EMULATED if options.emulated else Settings()
    compiles = settings.compiles and not options.without_compile
    settings = dataclasses.replace(settings, extra=tuple(options.contender), compiles=compiles)
    device = facts(settings)
    if device is None or not package_imports(settings):
        return 1
    print(f"{device['name']}: {', '.join(f'{name} {version}' for name, version in device['versions'].items())}")

    from . import record, runner  # not earlier: that there is no GPU is said whatever else is missing

    if options.resume:
        path = options.resume
        try:
            kept = record.Record.resumed(path, command(options), device)
        except (OSError, ValueError) as error:
            print(f"gpu_check: {error}", file=sys.stderr)
            return 1
    else:
        path = record.free_path(folder_of(options), record.file_name(device["name"], record.today()))
        kept = record.Record.new(path, command(options), emulated=options.emulated, budget=options.budget,
                                 settings=dataclasses.asdict(settings), device=device)  # fmt: skip
    runner.run_parts(kept, chosen(options, settings), settings, deadline)
    return runner.finish(kept, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
