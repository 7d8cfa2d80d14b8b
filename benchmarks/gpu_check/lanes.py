"""A contender of the race on the device: its step, the step as a graph, and the step that is checked."""

from __future__ import annotations

import contextlib
import signal
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnet_fused.bench import contenders, job as jobs, photographs
from resnet_fused.bench.contenders import Contender
from resnet_fused.bench.job import Job
from resnet_fused.bench.oracle import Answer
from resnet_fused.bench.requirements import MissingPackage

from .device import Device
from .plan import Settings

AUTOCAST = {"float16": torch.float16, "bfloat16": torch.bfloat16}
LOSS_SCALE = {"float16": 512.0}  # a fixed one: most gradients would be float16's zero without
DISTINCT = 32  # photographs in a batch; a larger one repeats them
SUBJECTS = {"fused": "cuda", "fused_library": "library", "fused_triton": "triton", "fused_auto": "auto"}
OWN = {
    "max_autotune": Contender(
        "max_autotune", "torch.compile max-autotune", torch.channels_last,
        # Without its own graphs: the race captures every contender's steps alike.
        lambda model, job: torch.compile(model, mode="max-autotune-no-cudagraphs"), compiles=True,  # type: ignore
    ),
}  # fmt: skip


class TimeUp(BaseException):
    """Not an Exception: nothing that catches those may keep a step running."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises RuntimeError in this thread once `seconds` are over; a call that never returns to Python goes on."""
    if seconds <= 0:
        raise RuntimeError("no time was left for it")

    def ring(*_: Any) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except TimeUp:
        raise RuntimeError(f"not ready within {seconds:.0f} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def resolve(spec: str) -> Contender:
    return OWN.get(spec) or contenders.resolve("fused" if spec in SUBJECTS else spec)


def backend_of(spec: str, settings: Settings) -> str:
    """The backend that a contender of ours asks for; others ask for none."""
    return {"fused": settings.backend}.get(spec, SUBJECTS.get(spec, "auto"))


def batch_of(job: Job) -> tuple[Tensor, Tensor, str]:
    """Images, labels and what the images are; noise where the photographs' packages are missing."""
    count = min(job.batch, DISTINCT)
    try:
        (images, labels), kind = photographs.batch(count, job.image), "photographs"
    except MissingPackage:
        generator = torch.Generator().manual_seed(job.seed)
        images, kind = torch.randn(count, 3, job.image, job.image, generator=generator), "noise"
        labels = torch.arange(count) * photographs.LABEL_STEP % 1000
    times = -(-job.batch // count)
    return images.repeat(times, 1, 1, 1)[: job.batch], labels.repeat(times)[: job.batch], kind


class Step:
    """One step of a model on one batch: forward, and in training cross entropy and backward."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, job: Job, precision: str) -> None:
        self.model, self.images, self.labels, self.job = model, images, labels, job
        self.dtype, self.scale = AUTOCAST.get(precision), LOSS_SCALE.get(precision, 1.0)
        self.outputs: Tensor
        # Where this is set Triton measures all tilings of a convolution, each of which takes seconds to compile.
        self.benchmark = job.backend != "triton"

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.images.device.type, self.dtype, enabled=self.dtype is not None)

    def __call__(self) -> None:
        torch.backends.cudnn.benchmark = self.benchmark
        with contenders.chosen_backend(self.job):
            if not self.job.training:
                with torch.inference_mode(), self.autocast():
                    self.outputs = self.model(self.images)
                return
            self.model.zero_grad(set_to_none=True)
            with self.autocast():
                logits = self.model(self.images)
                loss = F.cross_entropy(logits, self.labels) * self.scale
            loss.backward()
            self.outputs = logits.detach()

    def answer(self, images: int) -> Answer:
        """What the last call computed, of the first so many images; a copy, for a graph writes to the same memory."""
        gradients = {}
        if self.job.training:
            gradients = {name.removeprefix("_orig_mod."): parameter.grad.double() / self.scale
                         for name, parameter in self.model.named_parameters()
                         if parameter.grad is not None}  # fmt: skip
        return Answer(self.outputs[:images].double(), gradients)


@dataclass
class Lane:
    """One contender, eager calls or a graph; `error` is why it is no longer in the race."""

    name: str
    label: str
    graph: bool
    run: Callable[[], Any] | None = None
    errors: Any = None  # against float64
    ready_seconds: float | None = None  # building, compiling and warming up
    peak_bytes: int | None = None
    rounds: list[float] = field(default_factory=list)
    error: str | None = None


def label_of(spec: str, backend: str) -> str:
    base = resolve(spec).label
    return f"{base}, {backend}" if spec in SUBJECTS else base


def prepared(spec: str, start: jobs.Start, job: Job, device: Device) -> tuple[nn.Module, torch.memory_format]:
    """The contender's model on the device, from the common weights."""
    contender = resolve(spec)
    model = jobs.build_model(job, start.state).to(device.torch, memory_format=contender.memory_format)
    return contender.prepare(model, job), contender.memory_format


def steps_of(spec: str, start: jobs.Start, job: Job, precision: str, checked: int,
             device: Device) -> tuple[Step, Step]:  # fmt: skip
    """The step that is timed, and the one that is checked: the same one where it fits."""
    model, layout = prepared(spec, start, job, device)
    images = start.images.contiguous(memory_format=layout)
    work = Step(model, images, start.labels, job, precision)
    if not job.training or checked == job.batch:  # in inference the images of a batch are independent
        return work, work
    subset = images[:checked].contiguous(memory_format=layout)
    return work, Step(model, subset, start.labels[:checked], job, precision)
