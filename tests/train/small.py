"""Small real data and a small run for the tests of training."""

from __future__ import annotations

import csv

import numpy
import torch
from PIL import Image
from sklearn.datasets import load_digits

from resnet_fused.train import data
from resnet_fused.train.settings import complete


def write_folder(folder, parts, size=16):
    """Digits as PNG files, `folder`/part/class/number.png; parts: {name: numbers}."""
    digits = load_digits()
    for part, numbers in parts.items():
        for number in numbers:
            path = folder / part / str(digits.target[number]) / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = Image.fromarray((digits.images[number] * 15).astype(numpy.uint8))
            grey.resize((size, size)).save(path)


def settings(folder=None, **given):
    """Digits at 8×8, or a folder at 16×16; resnet20 in batches of 16, one epoch, no warm-up."""
    place = {"data": "digits", "image": 8} if folder is None else {"data": f"folder:{folder}", "image": 16}
    return complete({**place, "model": "resnet20", "batch": 16, "epochs": 1, "warmup": 0, **given})


def few(read, train, test):
    """The first images of the data."""
    return read._replace(train=torch.utils.data.Subset(read.train, range(train)),
                         test=torch.utils.data.Subset(read.test, range(test)))  # fmt: skip


def digits(train=160, test=64, **given):
    """→ (settings, the first digits)."""
    chosen = settings(**given)
    return chosen, few(data.load(chosen), train, test)


def table(folder):
    """metrics.csv without what a clock decides."""
    clock = ("seconds", "images_per_second")
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in clock} for row in csv.DictReader(file)]
