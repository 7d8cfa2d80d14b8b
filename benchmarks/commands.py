"""What the commands of this folder share: their last options, and what becomes of a result."""

from __future__ import annotations

import argparse
import io
import sys
from typing import Any, Callable

from resnet_fused.bench import environment
from resnet_fused.bench.requirements import MissingPackage, require
from resnet_fused.bench.result import Unwritable, check_writable, to_json, write_output
from resnet_fused.cli.bench import positive

FEWEST, MOST = 3, 15  # rounds


def add_options(parser: argparse.ArgumentParser, budget: int, chart: str) -> None:
    option = parser.add_argument
    option("--budget", type=positive, default=budget, metavar="SECONDS",
           help=f"at least {FEWEST} rounds are run all the same (default: %(default)s)")  # fmt: skip
    option("--rounds", type=positive, metavar="R", help="so many, whatever the budget")
    option("--threads", type=positive, default=environment.cpu_count(), metavar="T", help="(default: %(default)s)")
    option("--json", metavar="FILE", help="write the result as JSON")
    option("--plot", metavar="FILE.svg", help=f"write a chart{chart}")


def execute(options: argparse.Namespace, name: str, run: Callable, show: Callable, svg: Callable[[Any], str]) -> int:
    """Runs, shows and writes; the exit status."""
    try:
        check_writable(options.json, options.plot)
        result = run(options)
        show(result)
        if options.json:
            write_output(options.json, to_json(result))
        if options.plot:
            write_output(options.plot, svg(result))
    except (MissingPackage, Unwritable) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def svg_text(figure: Any, purpose: str) -> str:
    """A matplotlib figure as SVG, the same bytes every time."""
    matplotlib = require("matplotlib", "matplotlib", purpose)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "resnet_fused", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
