"""What is run: one model in one mode on one batch; the same for every contender."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_fused import models
from resnet_fused.modules import FusedModule

from .requirements import require

MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")  # torchvision's
CIFAR = tuple(f"{family}{depth}" for depth in (20, 32, 44, 56, 110) for family in ("resnet", "plain"))  # ours
MODES = ("train", "infer")

# Multiply-accumulates of one 224 x 224 image's forward pass, in units of 1e9 (torchvision's model table).
GIGA_MACS = {"resnet18": 1.81, "resnet34": 3.66, "resnet50": 4.09, "resnet101": 7.80, "resnet152": 11.51}

# The longest sum behind one element of the forward pass: the last stage's 3x3 convolutions over 512 channels, or 64.
LONGEST_REDUCTION = 512 * 9
LONGEST_REDUCTION_OF_CIFAR = 64 * 9


@dataclass(frozen=True)
class Job:
    """One model in one mode. ``threads`` is torch's intra-op thread count; ``seed`` fixes the weights."""

    model: str
    mode: str
    batch: int
    image: int
    backend: str = "auto"
    threads: int = 1
    seed: int = 0

    @property
    def training(self) -> bool:
        return self.mode == "train"

    @property
    def giga_macs(self) -> float:
        """Multiply-accumulates of one step in units of 1e9; a backward pass costs two forward passes."""
        passes = 3 if self.training else 1
        return passes * _giga_macs(self.model, self.image) * self.batch

    @property
    def classes(self) -> int:
        return models.entry(self.model).num_classes

    @property
    def longest_reduction(self) -> int:
        return LONGEST_REDUCTION_OF_CIFAR if self.model in CIFAR else LONGEST_REDUCTION


@lru_cache(maxsize=None)
def _giga_macs(model: str, image: int) -> float:
    """Of one image's forward pass."""
    if model in MODELS:
        return GIGA_MACS[model] * (image / 224) ** 2
    with torch.device("meta"):
        network = models.create(model)
    return sum(layer.multiply_adds for layer in models.layers(network, (1, 3, image, image))) / 1e9


@dataclass
class Start:
    """What every contender starts from: weights, and the batch in contiguous NCHW with its labels."""

    state: dict[str, Tensor]
    images: Tensor
    labels: Tensor


def build_model(job: Job, state: dict[str, Tensor] | None = None) -> nn.Module:
    """The model in float32 NCHW, unfused, with weights drawn from the job's seed or those of ``state``.

    torchvision's, or for CIFAR, of which torchvision has none, ours with every unit run by its children one by one.
    """
    torch.manual_seed(job.seed)
    if job.model in CIFAR:
        model = unfuse(models.create(job.model))
    else:
        torchvision = require("torchvision.models", "torchvision", "the benchmark's models")
        model = getattr(torchvision, job.model)(weights=None)
    if state is not None:
        model.load_state_dict(state)
    return model.train(job.training)


@lru_cache(maxsize=None)
def _eager_twin(fused: type[FusedModule]) -> type[FusedModule]:
    return type(f"Eager{fused.__name__}", (fused,), {"forward": fused.eager_forward})


def unfuse(model: nn.Module) -> nn.Module:
    """Turns each fused unit into one that calls its children and asks nothing; undone by ``fuse``; returns ``model``.

    Within ``backend("eager")`` a unit would first ask what is to run, which in small networks takes time.
    """
    for module in model.modules():
        if isinstance(module, FusedModule):
            module.__class__ = _eager_twin(type(module))
    return model


def fuse(model: nn.Module) -> nn.Module:
    """Undoes ``unfuse`` and returns ``model``."""
    for module in model.modules():
        if isinstance(module, FusedModule):
            module.__class__ = type(module).__base__
    return model


def save_start(start: Start, path: str) -> None:
    """Write it once, so that the contenders share it and need not load the photographs' packages."""
    torch.save({"state": start.state, "images": start.images, "labels": start.labels}, path)


def load_start(path: str) -> Start:
    """Read what ``save_start`` wrote."""
    return Start(**torch.load(path, weights_only=True))


def run_step(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """One step and its logits: forward, cross entropy and backward while training, else forward alone."""
    if not model.training:
        with torch.inference_mode():
            return model(images)
    model.zero_grad(set_to_none=True)
    logits = model(images)
    F.cross_entropy(logits, labels).backward()
    return logits.detach()
