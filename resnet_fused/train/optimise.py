"""What a run changes: the network, its optimizer and schedule, the average of its weights, the loss's scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from resnet_fused import models
from resnet_fused.train import parallel
from resnet_fused.train.settings import Settings

STEPS_DOWN = (0.5, 0.75)  # of the epochs, after which the rate is a tenth: He et al. 2016, section 4.2
WARMUP_START = 0.01  # of the highest rate
_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass
class State:
    """All that training changes. `network` is the bare module, whatever wraps it where it is called.

    Where it is sharded, all processes must take and load the state at once; the state itself is that of one process.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    average: AveragedModel | None

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, lists and dictionaries, for torch.load(weights_only=True)."""
        state = {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.average is None else self.average.state_dict(),
        }
        return parallel.whole(state) if parallel.is_sharded(self.network) else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError, ValueError or RuntimeError where it is another network's."""
        if parallel.is_sharded(self.network):
            state = self._sharded(state)
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["ema"])

    def _sharded(self, state: dict[str, Any]) -> dict[str, Any]:
        """This process's part of a whole state."""

        def of_module(module: nn.Module, whole: dict[str, Any]) -> dict[str, Any]:
            return {name: parallel.part(whole[name], ours) for name, ours in module.state_dict().items()}

        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments = {
            i: {name: parallel.part(value, parameters[i]) for name, value in values.items()}
            for i, values in state["optimizer"]["state"].items()
        }
        return {
            **state,
            "model": of_module(self.network, state["model"]),
            "optimizer": {**state["optimizer"], "state": moments},
            "ema": None if self.average is None else of_module(self.average, state["ema"]),
        }


def build(
    settings: Settings, classes: int, steps: int, shard: Callable[[nn.Module], None] = lambda network: None
) -> State:
    """A run's beginning, drawn from its seed; `steps` in an epoch. Seeds torch's generators.

    shard: makes shards of a network's parameters in place; the optimizer is made of these.
    """
    torch.manual_seed(settings.seed)
    network = models.create(settings.model, num_classes=classes)
    network.to(device=settings.device, memory_format=_FORMATS[settings.layout])
    average = None
    if settings.ema:
        average = AveragedModel(network, multi_avg_fn=parallel.average_shards(settings.ema), use_buffers=True)
        shard(average.module)
    shard(network)
    optimizer = torch.optim.SGD(
        parameter_groups(network, settings.weight_decay, settings.no_bias_decay),
        lr=settings.lr, momentum=settings.momentum, nesterov=True,
    )  # fmt: skip
    scheduler = LambdaLR(optimizer, lambda step: rate(settings, step / steps))
    scaler = torch.amp.GradScaler(torch.device(settings.device).type, enabled=settings.precision == "float16")
    return State(network, optimizer, scheduler, scaler, average)


def memory_format(settings: Settings) -> torch.memory_format:
    """The images' memory format."""
    return _FORMATS[settings.layout]


def parameter_groups(network: nn.Module, weight_decay: float, no_bias_decay: bool) -> list[dict[str, Any]]:
    """The parameters, in two groups where vectors (batch norms' and biases) are not to be decayed."""
    parameters = list(network.parameters())
    if not no_bias_decay:
        return [{"params": parameters, "weight_decay": weight_decay}]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def rate(settings: Settings, epoch: float) -> float:
    """The learning rate as a part of its highest, after `epoch` epochs (with a fraction), in closed form.

    Warm-up: a line from WARMUP_START to 1 (Goyal et al. 2017, section 2.2). Then with t from 0 to 1 over the rest:
    cosine (1 + cos πt) / 2 (Loshchilov & Hutter 2017, SGDR), or a tenth after each of STEPS_DOWN of all epochs.
    """
    if epoch < settings.warmup:
        return WARMUP_START + (1 - WARMUP_START) * epoch / settings.warmup
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * min(1.0, (epoch - settings.warmup) / (settings.epochs - settings.warmup)))) / 2
    if settings.schedule == "step":
        return 0.1 ** sum(epoch >= part * settings.epochs for part in STEPS_DOWN)
    return 1.0
