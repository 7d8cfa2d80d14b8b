"""The table of a run's epochs, as CSV and in words."""

from __future__ import annotations

import csv
import io
import os
from typing import Any, Mapping, Sequence

from resnet_fused.bench.result import write_atomically

NAME = "metrics.csv"
FIELDS = ("epoch", "step", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "ema_test_accuracy",
          "images_per_second", "seconds")  # lr: of the epoch's last step # fmt: skip
EMA = "ema_test_accuracy"

Row = Mapping[str, Any]  # of FIELDS; EMA only where an average is kept


def write(folder: str, rows: Sequence[Row]) -> None:
    """Replaces the folder's table by these rows: after a resumption it has each epoch once, whatever it had before.

    Floats are written to be read back exactly.
    """
    names = [name for name in FIELDS if name != EMA or any(EMA in row for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(os.path.join(folder, NAME), text.getvalue())


def accuracy_of(row: Row) -> float:
    """The test accuracy of what a run keeps: of the average, where there is one."""
    return row.get(EMA, row["test_accuracy"])


def line(row: Row, epochs: int) -> str:
    """An epoch in a line."""
    text = (f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  lr {row['lr']:.4f}  "
            f"train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}  "
            f"test loss {row['test_loss']:.4f}, accuracy {row['test_accuracy']:.2%}")  # fmt: skip
    if EMA in row:
        text += f", averaged {row[EMA]:.2%}"
    return text + f"  {row['images_per_second']:.0f} img/s, {row['seconds']:.1f} s"


def summary(rows: Sequence[Row], folder: str) -> str:
    """The last line of a run."""
    best = max(rows, key=accuracy_of)
    seconds = sum(row["seconds"] for row in rows)
    return (
        f"test accuracy {accuracy_of(rows[-1]):.2%} at the end, {accuracy_of(best):.2%} at best "
        f"(epoch {best['epoch']}), after {seconds:.0f} s; checkpoint.pt, metrics.csv and plot.svg are in {folder}"
    )
