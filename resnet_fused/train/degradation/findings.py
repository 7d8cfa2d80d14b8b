"""What the networks' errors say, as numbers and in words."""

from __future__ import annotations

import csv
import io
import statistics
from typing import Any, NamedTuple, Sequence

from resnet_fused.bench.table import grid
from resnet_fused.train.degradation.experiment import FAMILIES, Trained

MARGIN = 0.5  # points: 7 of the 1,408 digits of an epoch; less comes and goes with the seed
FIELDS = ("network", "depth", "seed", "epoch", "step", "train_error", "test_error", "train_loss", "test_loss")


class Final(NamedTuple):
    """A network's errors after the last epoch, in per cent, one for each seed.

    The training error is that of the epoch's images as they were trained on, augmented, at each step.
    """

    family: str
    depth: int
    train_errors: tuple[float, ...]
    test_errors: tuple[float, ...]


class Comparison(NamedTuple):
    """The deepest network of a family and the shallowest: their training errors' difference in points, seed by seed."""

    family: str
    shallow: int
    deep: int
    differences: tuple[float, ...]

    @property
    def above(self) -> int:
        """In how many seeds the deepest's training error is the larger by more than MARGIN."""
        return sum(difference > MARGIN for difference in self.differences)

    @property
    def verdict(self) -> str:
        """worse: the deepest's training error is the larger by more than MARGIN in every seed; not worse: in none."""
        return "worse" if self.above == len(self.differences) else "mixed" if self.above else "not worse"


def error_of(row: dict[str, Any], part: str) -> float:
    """In per cent; part: train or test."""
    return 100 * (1 - row[f"{part}_accuracy"])


def finals(trained: Sequence[Trained]) -> list[Final]:
    """By family and depth; seeds as in `trained`."""
    found: dict[tuple[str, int], list[Trained]] = {}
    for one in trained:
        found.setdefault((one.family, one.depth), []).append(one)
    return [
        Final(*key, *(tuple(error_of(one.rows[-1], part) for one in ones) for part in ("train", "test")))
        for key, ones in found.items()
    ]


def compare(ends: Sequence[Final]) -> list[Comparison]:
    """One comparison for each family."""
    comparisons = []
    for family in FAMILIES:
        mine = sorted((end for end in ends if end.family == family), key=lambda end: end.depth)
        differences = tuple(b - a for a, b in zip(mine[0].train_errors, mine[-1].train_errors))
        comparisons.append(Comparison(family, mine[0].depth, mine[-1].depth, differences))
    return comparisons


def spread(values: Sequence[float]) -> str:
    """Median, least and greatest: 3.40 (2.81 to 3.50)."""
    median = f"{statistics.median(values):.2f}"
    return median if len(values) == 1 else f"{median} ({min(values):.2f} to {max(values):.2f})"


def table(ends: Sequence[Final]) -> str:
    """A line for each network."""
    rows = [(f"{end.family}{end.depth}", spread(end.train_errors), spread(end.test_errors)) for end in ends]
    seeds = len(ends[0].train_errors)
    of_seeds = f"; of {seeds} seeds the median, in brackets the least and the greatest" if seeds > 1 else ""
    return grid(("", "training error", "test error"), rows) + f"\n\nerrors after the last epoch in per cent{of_seeds}"


def environments(trained: Sequence[Trained]) -> list[dict[str, Any]]:
    """Each environment (as bench.environment describes it, None: not known) with the epochs that were trained in it.

    `trained`: a network, its seed, and its first and last epoch there, for each time that it was.
    """
    found: list[dict[str, Any]] = []
    for one in trained:
        firsts = [part["from_epoch"] for part in one.ran]
        for part, first, after in zip(one.ran, firsts, [*firsts[1:], len(one.rows) + 1]):
            same = next((known for known in found if known["environment"] == part["environment"]), None)
            if same is None:
                found.append(same := {"environment": part["environment"], "trained": []})
            same["trained"].append({"network": one.network, "seed": one.seed, "epochs": [first, after - 1]})
    return found


def machines(places: Sequence[dict[str, Any]]) -> str:
    """What environments() found, in a sentence."""
    epochs: dict[str, int] = {}
    for place in places:
        name = _machine(place["environment"])
        epochs[name] = epochs.get(name, 0) + sum(last - first + 1 for first, last in _spans(place))
    if len(epochs) == 1:
        return f"trained on {next(iter(epochs))}"
    parts = ", ".join(f"{count} on {name}" for name, count in epochs.items())
    return f"trained in several environments, whose roundings may differ; epochs: {parts}"


def _spans(place: dict[str, Any]) -> list[list[int]]:
    return [part["epochs"] for part in place["trained"]]


def _machine(environment: dict[str, Any] | None) -> str:
    if environment is None:
        return "a machine that was not recorded"
    name = environment.get("gpu") or environment["cpu_model"]
    return f"{name} ({environment['torch_isa']}, torch {environment['versions']['torch']})"


_CONCLUSIONS = {
    ("plain", "worse"): "without shortcuts, depth made training itself worse: this is the degradation of the paper.",
    ("plain", "mixed"): "without shortcuts, depth made training worse in some seeds only: no clear degradation here.",
    ("plain", "not worse"): "without shortcuts, depth did not make training worse: no degradation was seen here.",
    ("resnet", "worse"): "with shortcuts, depth made training worse too, unlike in the paper.",
    ("resnet", "mixed"): "with shortcuts, depth made training worse in some seeds and not in others.",
    ("resnet", "not worse"): "with shortcuts, depth did not make training worse, as in the paper.",
}


def sentences(comparisons: Sequence[Comparison]) -> list[str]:
    """What was seen, whichever way it went: a sentence for each family."""
    return [
        f"The training error of {c.family}{c.deep} minus that of {c.family}{c.shallow} is {spread(c.differences)} "
        f"points, more than {MARGIN:g} in {c.above} of {len(c.differences)} seeds: {_CONCLUSIONS[c.family, c.verdict]}"
        for c in comparisons
    ]


def csv_of(trained: Sequence[Trained]) -> str:
    """Every epoch of every network and seed, errors in per cent."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for one in trained:
        for row in one.rows:
            errors = (round(error_of(row, part), 4) for part in ("train", "test"))
            losses = (row["train_loss"], row["test_loss"])
            writer.writerow((one.network, one.depth, one.seed, row["epoch"], row["step"], *errors, *losses))
    return text.getvalue()
