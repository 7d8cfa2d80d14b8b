"""``resnet-fused info``: versions, processor, and which backends are usable, or why not and how to get them."""

from __future__ import annotations

import argparse
import json
from typing import Any, Sequence

from ..bench import environment


def add_parser(commands: Any) -> None:
    """Register the subcommand."""
    parser = commands.add_parser("info", help="list versions, processor and backends")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def collect() -> dict[str, Any]:
    """All of it as a JSON-ready dictionary."""
    from .. import backends

    facts = environment.describe()
    facts["cuda_extension"] = environment.extension_facts("cuda")
    facts["backends"] = {
        name: {"usable": reason is None, "reason": reason} for name, reason in backends.available().items()
    }
    return facts


def show(value: Any) -> str:
    """A fact as plain text."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not installed" if value is None else str(value)


def section(title: str, facts: dict[str, Any]) -> list[str]:
    """A titled block of aligned lines."""
    width = max((len(name) for name in facts), default=0)
    return [title, *(f"  {name.ljust(width)}  {show(value)}" for name, value in facts.items()), ""]


def extension_lines(facts: dict[str, Any]) -> dict[str, Any]:
    """An extension's facts with their keys as words; alone the reason where it is not there."""
    if "unavailable" in facts:
        return {"unavailable": facts["unavailable"]}
    return {name.replace("_", " "): value for name, value in facts.items()}


def text(facts: dict[str, Any]) -> str:
    """The facts for a terminal."""
    lines = section("versions", facts["versions"])
    lines += section("processor", {
        "model": facts["cpu_model"],
        "CPUs": facts["cpus"],
        "threads": facts["threads"],
        "torch's instruction set": facts["torch_isa"],
    })
    lines += section("CPU extension", extension_lines(facts["cpu_extension"]))
    lines += section("CUDA extension", extension_lines(facts["cuda_extension"]))
    lines += section("backends", {
        name: "usable" if backend["usable"] else backend["reason"] for name, backend in facts["backends"].items()
    })
    return "\n".join(lines).rstrip()


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Print the facts."""
    facts = collect()
    print(json.dumps(facts, indent=1) if options.json else text(facts))
    return 0
