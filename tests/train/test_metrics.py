"""The table, its drawing, and TensorBoard's copy of it."""

import csv
import os
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from resnet_fused.bench.requirements import MissingPackage
from resnet_fused.train import Place, board, metrics, plot, run

ROWS = [
    {"epoch": e, "step": 10 * e, "lr": 0.1 / e, "train_loss": 2 / 3**e, "train_accuracy": 1 - 1 / 3**e,
     "test_loss": 1 / e, "test_accuracy": a, "images_per_second": 123.4, "seconds": 1.5}
    for e, a in ((1, 0.5), (2, 0.9), (3, 0.8))
]  # fmt: skip
AVERAGED = [{**row, "ema_test_accuracy": row["epoch"] / 4} for row in ROWS]


@pytest.mark.parametrize("rows", (ROWS, AVERAGED), ids=["plain", "averaged"])
def test_table_is_read_back_exactly(tmp_path, rows):
    metrics.write(tmp_path, rows)
    with open(tmp_path / metrics.NAME, newline="") as file:
        read = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert read == rows and list(read[0]) == [name for name in metrics.FIELDS if name in rows[0]]
    metrics.write(tmp_path, rows[:1])
    assert len((tmp_path / metrics.NAME).read_text().splitlines()) == 2
    assert os.listdir(tmp_path) == [metrics.NAME]


def test_summary_names_best_and_last():
    assert metrics.summary(ROWS, "there") == (
        "test accuracy 80.00% at the end, 90.00% at best (epoch 2), after 4 s; checkpoint.pt, metrics.csv and plot.svg "
        "are in there"
    )
    assert metrics.summary(AVERAGED, "there").startswith("test accuracy 75.00% at the end, 75.00% at best (epoch 3)")


def test_plot(tmp_path):
    """Two curves on each side, three with an average; the same bytes every time."""
    plot.write(tmp_path, AVERAGED, "resnet20 on digits")
    first = (tmp_path / plot.NAME).read_bytes()
    plot.write(tmp_path, AVERAGED, "resnet20 on digits")
    assert first == (tmp_path / plot.NAME).read_bytes()
    curves = [element for element in ElementTree.fromstring(first).iter("{http://www.w3.org/2000/svg}path")
              if any(colour in element.get("style", "") for colour in plot.COLOURS.values())]  # fmt: skip
    steps = [element.get("d").count("L") for element in curves if element.get("clip-path")]
    assert steps == [2] * 5  # from point to point of three


def test_a_loss_of_zero_is_drawn(tmp_path):
    plot.write(tmp_path, [{**ROWS[0], "train_loss": 0.0}, ROWS[1]], "")
    assert (tmp_path / plot.NAME).stat().st_size > 1000


def test_tensorboard_is_asked_for_but_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    with pytest.raises(MissingPackage, match=r"--tensorboard needs tensorboard: .*'resnet-fused\[train\]'"):
        board.writer(str(tmp_path), 0)


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is optional")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    add = board.writer(str(tmp_path), 0)
    for row in ROWS:
        add(row)
    events = EventAccumulator(str(tmp_path / board.NAME)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("test_accuracy")] == [(1, 0.5), (2, pytest.approx(0.9)),
                                                                            (3, pytest.approx(0.8))]  # fmt: skip
    again = board.writer(str(tmp_path), 1)  # a run that goes on after epoch 1
    again(ROWS[1])
    events = EventAccumulator(str(tmp_path / board.NAME)).Reload()
    assert [e.step for e in events.Scalars("test_loss")] == [1, 2]


def test_the_rate_is_of_the_epochs_last_step(tmp_path, monkeypatch):
    """Bit for bit what the optimizer took; a cosine's last is above 0, and a warm-up's first below the highest."""
    taken, step = [], torch.optim.SGD.step

    def recorded(optimizer, *arguments, **options):
        taken.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", recorded)
    given = {"data": "digits", "image": 8, "model": "resnet20", "batch": 300, "lr": 0.3, "epochs": 3, "warmup": 1}
    outcome = run(given, Place(str(tmp_path), threads=1), say=lambda line: None)
    assert len(taken) == 3 * 4 and [row["lr"] for row in outcome.rows] == taken[3::4]
    assert taken[3] < 0.3 and 0 < taken[-1] < taken[7] < 0.3
