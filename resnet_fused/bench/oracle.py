"""The float64 answer on the same weights and photographs, and eager float32's distance from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Sequence

import torch
from torch import Tensor, nn

from . import job as jobs, photographs
from .job import CIFAR, Job
from .verdict import Errors

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
SECONDS_PER_GIGA_MAC = 0.06  # of a float64 step on two cores, measured; only sizes the check
CHECK_SECONDS = 20.0

# Of CIFAR's networks a training step is checked on all images and on so many small batches. In a large one some ReLU's
# argument is always within rounding of zero, so that a gradient's error says how near, and not who is right.
SMALL_BATCHES, SMALL_BATCH = 5, 4


@dataclass
class Answer:
    """Outputs and parameter gradients of one step; no gradients in inference."""

    outputs: Tensor
    gradients: dict[str, Tensor]


def check_images(job: Job) -> int:
    """On how many of the batch's images numbers are checked: all, where float64 can do that in CHECK_SECONDS."""
    seconds = job.giga_macs * SECONDS_PER_GIGA_MAC * 2 / max(1, min(job.threads, 2))
    return max(1, min(job.batch, int(job.batch * CHECK_SECONDS / seconds)))


def steps_to_check(job: Job) -> list[slice]:
    """Which of the batch's images each checked step has; the first step has all that are checked."""
    count = check_images(job)
    small = range(0, count - 1, SMALL_BATCH) if job.training and job.model in CIFAR and count > SMALL_BATCH else ()
    return [slice(0, count), *(slice(i, min(i + SMALL_BATCH, count)) for i in small[:SMALL_BATCHES])]


def answers(model: nn.Module, images: Tensor, labels: Tensor, steps: Sequence[slice]) -> list[Answer]:
    """What each step computed."""
    return [answer(model, images[step], labels[step]) for step in steps]


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


def errors_of_all(ours: Sequence[Answer], exact: Sequence[Answer]) -> Errors:
    """Of several steps; the outputs' error is the largest of any."""
    every = [errors_of(mine, truth) for mine, truth in zip(ours, exact)]
    if len(every) == 1:
        return every[0]
    outputs = [errors.output for errors in every]
    least, most = {}, {}
    for name in set.intersection(*(set(errors.gradients) for errors in every)):
        values = [errors.gradients[name] for errors in every]
        finite = [value for value in values if value is not None]
        least[name], most[name] = (pick(finite) if len(finite) == len(values) else None for pick in (min, max))
    return Errors(None if None in outputs else max(outputs), least, most)


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
    images, labels, steps = batch[:count], targets[:count], steps_to_check(job)
    if not job.training:
        settle_running_statistics(model, images)
    # A copy, because the model turns float64 in place and its buffers move.
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    jobs.save_start(jobs.Start(state, batch, targets), start_file)

    exact = answers(model.double(), images.double(), labels, steps)
    torch.save([{"outputs": truth.outputs, "gradients": truth.gradients} for truth in exact], exact_file)
    eager = {}
    for layout, memory_format in LAYOUTS.items():
        single = jobs.build_model(job, state).to(memory_format=memory_format)
        ours = answers(single, images.contiguous(memory_format=memory_format), labels, steps)
        eager[layout] = asdict(errors_of_all(ours, exact))
    return {
        "images": count,
        "steps": len(steps),
        "eager": eager,
        "scales": {
            "output": max(float(truth.outputs.abs().max()) for truth in exact),
            "gradients": {name: max(float(truth.gradients[name].abs().max()) for truth in exact)
                          for name in exact[0].gradients},
        },
    }


def load(exact_file: str) -> list[Answer]:
    """Read what ``prepare`` wrote, mapped into memory rather than copied."""
    return [Answer(**stored) for stored in torch.load(exact_file, weights_only=True, mmap=True)]
