"""The checks that a mutant must not pass, one after the other."""

import contextlib

import torch
from emulator.library import SCHEDULES, Emulated

from . import battery_conv, battery_operators
from .target import Convolutions, Operators


@contextlib.contextmanager
def poisoned():
    """NaN in whatever an operator allocates and does not write."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def first_failure(emulated: Emulated, target) -> str | None:
    """The first case that fails and how; None where the kernels pass."""
    battery = battery_conv if isinstance(target, Convolutions) else battery_operators
    with poisoned():
        for number, case in enumerate(battery.cases(emulated, target)):
            emulated.set_schedule(SCHEDULES[number % 2], number)
            try:
                case.check()
            except Exception as error:
                return f"{case.name}: {_first_line(error)}"
            damage = emulated.check_canaries() if isinstance(target, Operators) else None
            if damage:
                return f"{case.name}: {damage}"
    return None


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
