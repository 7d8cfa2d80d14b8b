"""A check of the battery."""

from typing import Callable, NamedTuple


class Case(NamedTuple):
    name: str
    check: Callable[[], None]  # raises


def named(what, *parts) -> str:
    return "-".join([what, *map(str, parts)])
