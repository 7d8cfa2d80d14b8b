"""The table of epochs for TensorBoard, where that is asked for."""

from __future__ import annotations

import os
from typing import Any, Callable

from resnet_fused.bench.requirements import require
from resnet_fused.train.metrics import FIELDS, Row

NAME = "tensorboard"


def writer(folder: str, done: int) -> Callable[[Row], None]:
    """A function that adds an epoch's row to `folder`/tensorboard; of a run that goes on, epochs after `done` go.

    Raises MissingPackage where the package tensorboard is not installed.
    """
    require("tensorboard", "tensorboard", "--tensorboard", extra="train")
    from torch.utils.tensorboard import SummaryWriter

    board: Any = SummaryWriter(os.path.join(folder, NAME), purge_step=done + 1)

    def add(row: Row) -> None:
        for name in FIELDS[2:]:
            if name in row:
                board.add_scalar(name, row[name], row["epoch"])
        board.flush()

    return add
