"""The float64 answer on the same weights and photographs, and eager float32's distance from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from . import job as jobs, photographs
from .job import Job
from .verdict import Errors

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
SECONDS_PER_GIGA_MAC = 0.06  # of a float64 step on two cores, measured; only sizes the check
CHECK_SECONDS = 20.0


@dataclass
class Answer:
    """Outputs and parameter gradients of one step; no gradients in inference."""

    outputs: Tensor
    gradients: dict[str, Tensor]


def check_images(job: Job) -> int:
    """On how many of the batch's images numbers are checked: all, where float64 can do that in CHECK_SECONDS."""
    seconds = job.giga_macs * SECONDS_PER_GIGA_MAC * 2 / max(1, min(job.threads, 2))
    return max(1, min(job.batch, int(job.batch * CHECK_SECONDS / seconds)))


def answer(model: nn.Module, images: Tensor, labels: Tensor) -> Answer:
    """Run one step and collect what it computed."""
    outputs = jobs.run_step(model, images, labels)
    gradients = {}
    if model.training:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                gradients[name.removeprefix("_orig_mod.")] = parameter.grad  # torch.compile wraps the model
    return Answer(outputs, gradients)


def largest_error(ours: Tensor, exact: Tensor) -> float | None:
    """max |ours - exact| in float64; ``None`` where ours is not finite."""
    error = float((ours.double() - exact).abs().max())
    return error if error < float("inf") else None  # NaN compares false as well


def errors_of(ours: Answer, exact: Answer) -> Errors:
    """Largest errors of the outputs and of each gradient that ``exact`` and ``ours`` both have."""
    gradients = {
        name: largest_error(ours.gradients[name], gradient)
        for name, gradient in exact.gradients.items()
        if name in ours.gradients
    }
    return Errors(largest_error(ours.outputs, exact.outputs), gradients)


def settle_running_statistics(model: nn.Module, images: Tensor) -> None:
    """Set every BN's running statistics to the photographs' own.

    Freshly initialised ones (mean 0, variance 1) let activations grow with depth, as no trained network does.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average: after one batch, that batch's statistics
    training = model.training
    with torch.no_grad():
        model.train()(images)
    model.train(training)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum


def prepare(job: Job, start_file: str, exact_file: str) -> dict:
    """Write the common start and the float64 answer; return eager float32's errors and the scales."""
    count = check_images(job)
    model = jobs.build_model(job)
    batch, targets = photographs.batch(job.batch, job.image, job.classes)
    images, labels = batch[:count], targets[:count]
    if not job.training:
        settle_running_statistics(model, images)
    # A copy, because the model turns float64 in place and its buffers move.
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    jobs.save_start(jobs.Start(state, batch, targets), start_file)

    exact = answer(model.double(), images.double(), labels)
    torch.save({"outputs": exact.outputs, "gradients": exact.gradients}, exact_file)
    eager = {}
    for layout, memory_format in LAYOUTS.items():
        single = jobs.build_model(job, state).to(memory_format=memory_format)
        eager[layout] = asdict(errors_of(answer(single, images.contiguous(memory_format=memory_format), labels), exact))
    return {
        "images": count,
        "eager": eager,
        "scales": {
            "output": float(exact.outputs.abs().max()),
            "gradients": {name: float(gradient.abs().max()) for name, gradient in exact.gradients.items()},
        },
    }


def load(exact_file: str) -> Answer:
    """Read what ``prepare`` wrote, mapped into memory rather than copied."""
    stored = torch.load(exact_file, weights_only=True, mmap=True)
    return Answer(stored["outputs"], stored["gradients"])
