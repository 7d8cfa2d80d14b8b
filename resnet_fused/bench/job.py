"""What is run: one model in one mode on one batch; the same for every contender."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .requirements import require

MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
MODES = ("train", "infer")

# Multiply-accumulates of one 224 x 224 image's forward pass, in units of 1e9 (torchvision's model table).
GIGA_MACS = {"resnet18": 1.81, "resnet34": 3.66, "resnet50": 4.09, "resnet101": 7.80, "resnet152": 11.51}

# The longest sum behind one element of the forward pass: the last stage's 3x3 convolutions over 512 channels.
LONGEST_REDUCTION = 512 * 9


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
        return passes * GIGA_MACS[self.model] * self.batch * (self.image / 224) ** 2


@dataclass
class Start:
    """What every contender starts from: weights, and the batch in contiguous NCHW with its labels."""

    state: dict[str, Tensor]
    images: Tensor
    labels: Tensor


def build_model(job: Job, state: dict[str, Tensor] | None = None) -> nn.Module:
    """torchvision's model in float32 NCHW, with weights drawn from the job's seed or those of ``state``."""
    models = require("torchvision.models", "torchvision", "the benchmark's models")
    torch.manual_seed(job.seed)
    model = getattr(models, job.model)(weights=None)
    if state is not None:
        model.load_state_dict(state)
    return model.train(job.training)


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
