"""What decides a run's numbers, its defaults for each kind of data, and the comparison of two runs' settings."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Mapping

from resnet_fused import models

INSTALLED = ("digits", "images:demo")  # data that come with packages
FOLDERS = ("cifar10", "cifar100", "folder")  # kinds of data that are named with a folder
DATA = "digits, images:demo, cifar10:DIR, cifar100:DIR or folder:DIR"
SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("float32", "bfloat16", "float16")
LAYOUTS = ("channels_last", "contiguous")


class TrainError(Exception):
    """A run cannot start or go on; the message is one sentence for the user."""


@dataclass(frozen=True)
class Settings:
    """A run's settings; two runs of equal settings, machines and threads give equal numbers on a CPU."""

    data: str  # one of INSTALLED, or one of FOLDERS, a colon and a folder
    model: str = "resnet20"
    image: int = 32  # height and width
    epochs: int = 200
    batch: int = 128
    lr: float = 0.1  # at its highest, after the warm-up
    schedule: str = "cosine"
    warmup: float = 5  # epochs in which the rate rises from 0
    momentum: float = 0.9  # Nesterov's
    weight_decay: float = 5e-4
    no_bias_decay: bool = False  # batch norms and biases are not decayed
    label_smoothing: float = 0.0
    mixup: float = 0.0  # α of the Beta distribution; 0: none
    ema: float = 0.0  # what remains of the average after a step; 0: none is kept
    precision: str = "float32"  # others by autocast
    layout: str = "channels_last"
    eager: bool = False  # the same network unfused
    device: str = "cpu"
    seed: int = 0
    sync_bn: bool = False  # batch norms by the statistics of all processes' images

    @property
    def kind(self) -> str:
        return self.data.partition(":")[0]

    @property
    def folder(self) -> str:
        return self.data.partition(":")[2]


# What differs from the fields' defaults, which are for CIFAR.
# Digits: measured over three seeds; photographs as digits. Folders: He et al. 2016, section 3.4, with Goyal et al.
# 2017's warm-up.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": dict(image=16, epochs=15, batch=32, lr=0.1, warmup=1),
    "images": dict(epochs=15, batch=32, lr=0.1, warmup=1),
    "cifar10": {},
    "cifar100": {},
    "folder": dict(model="resnet18", epochs=90, batch=64, lr=0.025, weight_decay=1e-4),
}


def complete(given: Mapping[str, Any], usual: Mapping[str, Any] = MappingProxyType({})) -> Settings:
    """The settings that a user gave, the others as `usual`, else by the kind of data; `data` must be among those given.

    A warm-up that was not given leaves an epoch after it. Raises TrainError for unknown data or model, and for values
    out of their range.
    """
    data = place_of(given["data"])
    values = {**_DEFAULTS[data.partition(":")[0]], **usual, **given, "data": data}
    try:
        image = models.entry(values.get("model", Settings.model)).image
    except ValueError as error:
        raise TrainError(str(error)) from error
    if data.startswith("folder:"):
        values.setdefault("image", image)
    settings = Settings(**values)
    if "warmup" not in given:
        settings = replace(settings, warmup=min(settings.warmup, settings.epochs - 1))
    _check(settings)
    return settings


def place_of(data: str) -> str:
    """`data` with its folder as an absolute path, for a run to be resumed from anywhere; TrainError if it is none."""
    if data in INSTALLED:
        return data
    kind, _, folder = data.partition(":")
    if kind not in FOLDERS or not folder:
        raise TrainError(f"there are no data {data!r}; expected {DATA}")
    return f"{kind}:{os.path.abspath(os.path.expanduser(folder))}"


def _check(settings: Settings) -> None:
    wrong = [
        ("warmup", 0 <= settings.warmup < settings.epochs, f"at least 0 and less than --epochs {settings.epochs}"),
        ("lr", 0 < settings.lr < float("inf"), "above 0"),
        ("momentum", 0 < settings.momentum < 1, "between 0 and 1"),
        ("weight_decay", 0 <= settings.weight_decay < float("inf"), "at least 0"),
        ("label_smoothing", 0 <= settings.label_smoothing < 1, "at least 0 and below 1"),
        ("mixup", 0 <= settings.mixup < float("inf"), "at least 0"),
        ("ema", 0 <= settings.ema < 1, "at least 0 and below 1"),
    ]
    for name, right, words in wrong:
        if not right:
            raise TrainError(f"{option_of(name)} must be {words}, but is {getattr(settings, name):g}")


def option_of(name: str) -> str:
    """weight_decay → --weight-decay."""
    return "--" + name.replace("_", "-")


def restored(values: Mapping[str, Any]) -> Settings:
    """Settings from a checkpoint; TrainError where they are not this version's."""
    if set(values) != {field.name for field in fields(Settings)}:
        raise TrainError("the checkpoint was written by another version of resnet-fused train")
    return Settings(**values)


def resumed(saved: Settings, given: Mapping[str, Any]) -> Settings:
    """The settings of a run that goes on: the saved ones; what was given again must not differ.

    Only the data's folder may be another one, for data that were moved. Raises TrainError that names what differs.
    """
    given = dict(given)
    if "data" in given:
        data = place_of(given.pop("data"))
        if data.partition(":")[0] != saved.kind:
            raise TrainError(f"cannot resume with other settings: {_difference('data', saved.data, data)}")
        saved = replace(saved, data=data)
    differing = differences(saved, replace(saved, **given))
    if differing:
        raise TrainError(f"cannot resume with other settings: {', '.join(differing)}")
    return saved


def differences(saved: Settings, ours: Settings) -> list[str]:
    """What differs, each in words with both values."""
    other = asdict(ours)
    return [_difference(name, value, other[name]) for name, value in asdict(saved).items() if value != other[name]]


def _difference(name: str, saved: Any, ours: Any) -> str:
    return f"{option_of(name)} was {saved}, now {ours}"
