"""One epoch of training, and one evaluation."""

from __future__ import annotations

import warnings
from typing import Any, Callable, Iterable, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_fused.train.optimise import State, memory_format
from resnet_fused.train.processes import ALONE, Processes
from resnet_fused.train.settings import PRECISIONS, Settings

_DTYPES = {name: getattr(torch, name) for name in PRECISIONS}


class Score(NamedTuple):
    """Means over images; accuracy in 0..1."""

    loss: float
    accuracy: float


class Sums:
    """Losses and hits of many batches, added on their device: reading a number there waits for all work before it."""

    def __init__(self) -> None:
        self.loss: Tensor | float = 0.0
        self.hits: Tensor | float = 0.0
        self.images = 0

    def add(self, loss: Tensor, output: Tensor, labels: Tensor) -> None:
        """loss: the batch's mean; labels [N], or probabilities [N, classes], of which the largest counts."""
        if labels.ndim > 1:
            labels = labels.argmax(1)
        self.loss = self.loss + loss.detach().double() * len(output)
        self.hits = self.hits + (output.detach().argmax(1) == labels).sum()
        self.images += len(output)

    def score(self, ranks: Processes = ALONE) -> Score:
        """The means over all processes' images; of none ZeroDivisionError."""
        loss, hits, images = ranks.total(float(self.loss), float(self.hits), self.images)
        return Score(loss / images, hits / images)


def train_epoch(
    model: nn.Module, state: State, batches: Iterable[tuple[Tensor, Tensor]], settings: Settings,
    progress: Callable[[int], Any] = lambda images: None, ranks: Processes = ALONE,
) -> Score:  # fmt: skip
    """Trains one epoch; the schedule moves with every step.

    model: what is called on images [N, 3, S, S]: state.network, or what wraps it. Images take the parameters' dtype,
    but for autocast. batches: this process's portions, whose gradients `model` averages over the processes. progress:
    is told the images of each portion. → the loss as it was minimised, with smoothing and mixup, and the accuracy, both
    of the network as it was at each step.
    """
    model.train()
    sums = Sums()
    for images, labels in batches:
        images, labels = _placed(images, labels, state.network, settings)
        state.optimizer.zero_grad(set_to_none=True)
        with autocast(settings):
            output = model(images)
            loss = F.cross_entropy(output, labels, label_smoothing=settings.label_smoothing)
        state.scaler.scale(_weighted(loss, len(images), settings, ranks)).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        _advance(state)
        if state.average is not None:
            state.average.update_parameters(state.network)
        sums.add(loss, output, labels)
        progress(len(images))
    return sums.score(ranks)


def _weighted(loss: Tensor, images: int, settings: Settings, ranks: Processes) -> Tensor:
    """A portion's mean loss, so that the average of the processes' gradients is that of the joined batch's mean."""
    return loss if ranks.size == 1 else loss * (images * ranks.size / settings.batch)


def _advance(state: State) -> None:
    """The schedule is by steps, also by those that the loss's scale skipped: in float16 the first ones may be."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        state.scheduler.step()


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], settings: Settings, ranks: Processes = ALONE
) -> Score:
    """Loss (cross entropy, without smoothing) and accuracy on all processes' images; leaves the model in evaluation
    mode."""
    model.eval()
    sums = Sums()
    for images, labels in batches:
        images, labels = _placed(images, labels, model, settings)
        with autocast(settings):
            output = model(images)
            loss = F.cross_entropy(output, labels)
        sums.add(loss, output, labels)
    return sums.score(ranks)


def autocast(settings: Settings) -> torch.autocast:
    """float32 runs without."""
    enabled = settings.precision != "float32"
    return torch.autocast(torch.device(settings.device).type, _DTYPES[settings.precision], enabled=enabled)


def _placed(images: Tensor, labels: Tensor, network: nn.Module, settings: Settings) -> tuple[Tensor, Tensor]:
    dtype = next(network.parameters()).dtype
    images = images.to(settings.device, dtype, non_blocking=True, memory_format=memory_format(settings))
    labels = labels.to(settings.device, non_blocking=True)
    return images, labels.to(dtype) if labels.is_floating_point() else labels
