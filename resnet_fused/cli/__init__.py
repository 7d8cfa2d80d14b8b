"""The command ``resnet-fused``: ``info`` says what runs here, ``bench`` measures it, ``tune`` chooses by measuring,
``describe`` shows networks, ``train`` trains them, ``degradation`` compares depths."""

from __future__ import annotations

import argparse
import sys
from typing import Sequence

from . import bench, degradation, describe, info, train, tune
from .output import NobodyListens, discard, listened_to


def build_parser() -> argparse.ArgumentParser:
    """The command line with its subcommands."""
    parser = argparse.ArgumentParser(prog="resnet-fused", description="Fused ResNet blocks for PyTorch.",
                                     allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    info.add_parser(commands)
    bench.add_parser(commands)
    tune.add_parser(commands)
    describe.add_parser(commands)
    train.add_parser(commands)
    degradation.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status: 0, 1 for wrong numbers, or where nobody listens,
    2 for wrong usage, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = build_parser().parse_args(arguments)
    try:
        with listened_to():
            return options.run(options, arguments)
    except NobodyListens:
        discard()
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
