"""Where the time of a training step goes: milliseconds of each kernel, by torch's profiler, ours beside eager's."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from resnet_fused.bench import job as jobs
from resnet_fused.bench.job import Job

from .device import Device, describe, open_device
from .lanes import Step, backend_of, batch_of, label_of, prepared
from .part import Report
from .plan import Settings
from .race import WARM_UPS
from .rates import allow_tf32

STEPS = 3
MOST_KERNELS = 40
LONGEST_NAME = 120


def kernels_of(step: Step, device: Device) -> tuple[Counter, Counter]:
    """Milliseconds of a step, and launches, by kernel."""
    milliseconds: Counter = Counter()
    launches: Counter = Counter()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profile:
        for _ in range(STEPS):
            step()
        device.seconds(lambda: None)  # waits for them
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            name = short(event.name)
            milliseconds[name] += event.time_range.elapsed_us() / 1e3 / STEPS
            launches[name] += 1
    return milliseconds, launches


def short(name: str) -> str:
    """Without namespaces and return types, which hide what differs."""
    return re.sub(r"\(anonymous namespace\)::|resnet_fused::cuda::|at::native::|^void ", "", name)[:LONGEST_NAME]


def run(settings: Settings, report: Report, model: str, mode: str, precision: str, batch: int,
        contenders: list[str]) -> None:  # fmt: skip
    device = open_device(settings)
    allow_tf32(precision != "float32")
    torch.backends.cudnn.benchmark = True
    result: dict[str, Any] = {"model": model, "mode": mode, "precision": precision, "batch": batch, "contenders": []}
    for spec in contenders:
        backend = backend_of(spec, settings)
        job = Job(model, mode, batch, settings.image, threads=torch.get_num_threads(), backend=backend)
        report.progress(spec)
        images, labels, _ = batch_of(job)
        start = jobs.Start(jobs.build_model(job).state_dict(), images.to(device.torch), labels.to(device.torch))
        row: dict[str, Any] = {"name": spec, "label": label_of(spec, backend)}
        try:
            network, layout = prepared(spec, start, job, device)
            step = Step(network, start.images.contiguous(memory_format=layout), start.labels, job, precision)
            for _ in range(WARM_UPS):
                step()
            row["step_milliseconds"] = 1e3 * device.seconds(step, STEPS)
            milliseconds, launches = kernels_of(step, device)
            row |= {"kernel_milliseconds": milliseconds.total(), "launches": launches.total() // STEPS,
                    "kernels": [{"name": name, "milliseconds": time, "launches": launches[name] // STEPS}
                                for name, time in milliseconds.most_common(MOST_KERNELS)]}  # fmt: skip
            del network, step
        except RuntimeError as error:
            row["error"] = describe(error)
            if device.is_lost(error):
                raise
        result["contenders"].append(row)
        report.result(result)
        device.forget()
