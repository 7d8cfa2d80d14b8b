"""What is run: one model in one mode on one batch; the same for every contender."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import photographs
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


def build_model(job: Job, weights: str | None = None) -> nn.Module:
    """torchvision's model in float32 NCHW; with ``weights`` (a state_dict file), those weights."""
    models = require("torchvision.models", "torchvision", "the benchmark's models")
    torch.manual_seed(job.seed)
    model = getattr(models, job.model)(weights=None)
    if weights is not None:
        model.load_state_dict(torch.load(weights, weights_only=True))
    return model.train(job.training)


def build_batch(job: Job, memory_format: torch.memory_format) -> tuple[Tensor, Tensor]:
    """The photographs [batch, 3, image, image] in ``memory_format`` and their labels."""
    images, labels = photographs.batch(job.batch, job.image)
    return images.contiguous(memory_format=memory_format), labels


def run_step(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """One step and its logits: forward, cross entropy and backward while training, else forward alone."""
    if not model.training:
        with torch.inference_mode():
            return model(images)
    model.zero_grad(set_to_none=True)
    logits = model(images)
    F.cross_entropy(logits, labels).backward()
    return logits.detach()
