"""The process a contender lives in: ``python -m resnet_fused.bench.worker``.

Requests and replies are one line of JSON each. Between them the process blocks on the pipe, so that its thread pool
sleeps while another contender has its turn.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import sys
import time
from dataclasses import asdict
from typing import Any, Callable

import torch

from . import contenders, job as jobs, measure, oracle
from .job import Job

TURN_SECONDS = 0.25  # at least, of steps in one turn


def without_folders(text: str) -> str:
    """The text without the directories that it may quote."""
    return re.sub(r"(?<![\w.])/(?:[^\s/:'\"]+/)+", "", text)


def describe(error: BaseException) -> str:
    """One line for an exception."""
    lines = str(error).strip().splitlines()
    return without_folders(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)


class Runner:
    """One contender on one job. The methods are the requests a worker answers."""

    def __init__(self) -> None:
        self.job: Job
        self.contender: contenders.Contender

    def hello(self) -> None:
        """Imports are done once this is answered."""

    def oracle(self, job: dict, start_file: str, exact_file: str) -> dict:
        """Compute the float64 answer instead of racing."""
        settings = Job(**job)
        torch.set_num_threads(settings.threads)
        return oracle.prepare(settings, start_file, exact_file)

    def prepare(self, job: dict, contender: str, start_file: str) -> None:
        """Build the model and the batch; nothing is run yet."""
        self.job = Job(**job)
        torch.set_num_threads(self.job.threads)
        self.contender = contenders.resolve(contender)
        start = jobs.load_start(start_file)
        model = jobs.build_model(self.job, start.state).to(memory_format=self.contender.memory_format)
        self.model = self.contender.prepare(model, self.job)
        self.images = start.images.contiguous(memory_format=self.contender.memory_format)
        self.labels = start.labels
        del start, model
        measure.forget_peak()  # converting a model can take more memory than running it
        self.resident_before = measure.resident_bytes()

    def step(self) -> float:
        """One timed step, in seconds."""
        with contenders.chosen_backend(self.job):
            start = time.perf_counter()
            jobs.run_step(self.model, self.images, self.labels)
            return time.perf_counter() - start

    def turn(self) -> float:
        """Seconds of a step in one turn of the race.

        A short step is repeated, after one that finds caches and threads as another contender left them; the median.
        """
        seconds = self.step()
        if seconds >= TURN_SECONDS:
            return seconds
        return statistics.median(self.step() for _ in range(math.ceil(TURN_SECONDS / seconds)))

    def memory(self) -> dict:
        """Peak resident set of the steps so far, its growth since before the first, and bytes saved for backward."""
        peak = measure.peak_resident_bytes()
        saved = None
        if self.job.training:
            with contenders.chosen_backend(self.job):
                saved = measure.saved_for_backward(self.model, self.images, self.labels)
        return {
            "peak_rss_bytes": peak,
            "peak_rss_growth_bytes": max(0, peak - self.resident_before),
            "saved_for_backward_bytes": saved,
        }

    def check(self, exact_file: str) -> dict:
        """Errors of the steps that are checked against their float64 answers."""
        with contenders.chosen_backend(self.job):
            ours = oracle.answers(self.model, self.images, self.labels, oracle.steps_to_check(self.job))
        return asdict(oracle.errors_of_all(ours, oracle.load(exact_file)))


def serve(requests: Any, reply: Callable[[dict], None]) -> None:
    """Answer requests until the pipe closes; an exception is a reply too."""
    runner = Runner()
    for line in requests:
        request = json.loads(line)
        try:
            value = getattr(runner, request.pop("do"))(**request)
            reply({"value": value})
        except Exception as error:  # whatever a contender raises is its result
            reply({"error": describe(error)})


def main() -> None:
    """Keep the reply pipe to ourselves: whatever else prints to stdout goes to stderr."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(message: dict) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    serve(sys.stdin, reply)


if __name__ == "__main__":
    main()
