"""The race of one model in one mode, precision and batch: eager, torch.compile and ours, as calls and as CUDA graphs.

All contenders share the process, so that rounds alternate within milliseconds. The eager ones and ours are raced before
torch.compile's are compiled, and once more with those: what takes longest can spoil nothing that was measured.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any, Callable, Iterator

import torch

from resnet_fused.bench import contenders, job as jobs, oracle
from resnet_fused.bench.job import LONGEST_REDUCTION, Job
from resnet_fused.bench.race import rotated
from resnet_fused.bench.result import finite
from resnet_fused.bench.statistics import paired_speedup, spread, throughput
from resnet_fused.bench.verdict import Errors, Scales, judge

from .device import Device, describe, open_device
from .lanes import SUBJECTS, Lane, Step, backend_of, batch_of, label_of, resolve, steps_of, within
from .part import Report
from .plan import EAGER, Settings
from .rates import allow_tf32

WARM_UPS = 3
RESERVE = 10.0  # seconds kept for rounds when a contender takes long to be ready
COMPILING = ("fused_triton",)  # at first use, as torch.compile does
EXCUSED = ("not finished", "out of memory")  # the part's own failure, and a limit of the device


class Race:
    def __init__(self, job: Job, precision: str, device: Device, report: Report) -> None:
        self.job, self.precision, self.device, self.report = job, precision, device, report
        self.checked = min(job.batch, device.settings.check_images)
        self.lanes: list[Lane] = []
        self.started = time.monotonic()
        report.progress("float64 reference")
        allow_tf32(precision != "float32")
        self.start, self.exact, self.images = self.reference()
        torch.backends.cudnn.benchmark = True  # eager at its best; the reference need not be fast
        self.scales = Scales(float(self.exact.outputs.abs().max()),
                             {name: float(g.abs().max()) for name, g in self.exact.gradients.items()})  # fmt: skip
        device.forget()

    def reference(self) -> tuple[jobs.Start, oracle.Answer, str]:
        """The common weights and batch on the device, and eager's answer in float64 on the images that are checked."""
        images, labels, kind = batch_of(self.job)
        images, labels = images.to(self.device.torch), labels.to(self.device.torch)
        model = jobs.build_model(self.job).to(self.device.torch)
        few, targets = images[: self.checked], labels[: self.checked]
        if not self.job.training:
            oracle.settle_running_statistics(model, few)
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        exact = oracle.answer(model.double(), few.double(), targets)
        exact = oracle.Answer(exact.outputs.clone(), {name: g.clone() for name, g in exact.gradients.items()})
        return jobs.Start(state, images, labels), exact, kind

    def guarded(self, lane: Lane, function: Callable[[], Any]) -> Any:
        """A lane's failure is its result; where the device is lost with it, the part ends by its name."""
        try:
            return function()
        except Exception as error:
            lane.error, lane.run = describe(error), None
            lost = self.device.is_lost(error)
        self.device.forget()
        self.publish()
        if lost:
            raise RuntimeError(f"{lane.label} lost the device: {lane.error}")
        return None

    def enter(self, spec: str) -> None:
        """Builds a contender and its graph, checks both, and adds their lanes."""
        backend = backend_of(spec, self.device.settings)
        job = replace(self.job, backend=backend)
        name = contenders.name_of(spec)
        calls, graph = (Lane(name + suffix, label_of(spec, backend) + words, bool(suffix))
                        for suffix, words in (("", ""), ("+graph", ", graph")))  # fmt: skip
        self.lanes += [calls, graph]
        self.report.progress(calls.label)
        steps = self.guarded(calls, lambda: self.prepare(calls, spec, job))
        if steps is None:
            graph.error = f"not tried: {calls.error}"
            return
        self.report.progress(graph.label)
        self.guarded(graph, lambda: self.capture(graph, *steps))

    def prepare(self, lane: Lane, spec: str, job: Job) -> tuple[Step, Step]:
        started = time.monotonic()
        with within(self.report.left() - RESERVE):
            work, probe = steps_of(spec, self.start, job, self.precision, self.checked, self.device)
            for _ in range(WARM_UPS if not self.device.settings.emulated else 1):
                work()
            lane.ready_seconds = time.monotonic() - started
            lane.peak_bytes = self.device.peak_bytes(work)
            if not self.job.training:
                work()  # and not what is left of the call before
            probe()
        lane.errors = oracle.errors_of(probe.answer(self.checked), self.exact)
        lane.run = work
        return work, probe

    def capture(self, lane: Lane, work: Step, probe: Step) -> None:
        """A graph of the checked step is checked, a graph of the timed one is timed."""
        started = time.monotonic()
        with within(self.report.left() - RESERVE):
            replay = self.device.capture(probe)
            replay()
            lane.errors = oracle.errors_of(probe.answer(self.checked), self.exact)
            lane.run = replay if work is probe else self.device.capture(work)
            lane.ready_seconds = time.monotonic() - started

    def rounds(self, report_as: str) -> None:
        """Every lane anew, so that all have the same number of rounds, from the same minute."""
        running = [lane for lane in self.lanes if lane.run is not None]
        repeats = {}
        for lane in running:
            lane.rounds = []
            seconds = self.guarded(lane, lambda: self.device.seconds(lane.run))
            repeats[lane.name] = self.device.repeats(seconds or 1.0)
        for i in range(self.device.settings.rounds):
            if i and self.report.left() < 0:
                break
            self.report.progress(f"{report_as}, round {i + 1}")
            for lane in rotated([lane for lane in running if lane.run is not None], i):
                seconds = self.guarded(lane, lambda: self.device.seconds(lane.run, repeats[lane.name]))
                if seconds is not None:
                    lane.rounds.append(seconds)

    def publish(self) -> None:
        self.report.result(result_of(self))


def baseline_of(lanes: list[Lane]) -> dict[str, Errors]:
    """Eager's own errors in this precision, by layout."""
    return {lane.name: lane.errors for lane in lanes if lane.name in EAGER and lane.errors is not None}


def row_of(race: Race, lane: Lane) -> dict[str, Any]:
    """A lane's part of the result; `status` is ok, wrong, unchecked or failed."""
    row = {"name": lane.name, "label": lane.label, "graph": lane.graph, "ready_seconds": lane.ready_seconds,
           "peak_bytes": lane.peak_bytes, "round_seconds": lane.rounds}  # fmt: skip
    if lane.error is not None or lane.errors is None:
        return {**row, "status": "failed", "error": lane.error or "not finished"}
    eager = baseline_of(race.lanes)
    if not eager:
        return {**row, "status": "unchecked", "error": "no eager contender to judge by"}
    baseline = "channels_last" if "channels_last" in eager else "nchw"
    verdict = judge(lane.errors, eager, race.scales, LONGEST_REDUCTION, baseline)
    row |= {
        "status": "ok" if verdict.right else "wrong", "reasons": list(verdict.reasons),
        "output_error": finite(lane.errors.output), "output_bound": finite(verdict.output_bound),
        "gradient_error": finite(verdict.gradient_worst), "gradient_ratio": finite(verdict.gradient_ratio),
    }  # fmt: skip
    if lane.rounds:
        row["images_per_second"] = asdict(throughput(lane.rounds, race.job.batch))
        row["milliseconds"] = asdict(spread([1e3 * seconds for seconds in lane.rounds]))
    return row


def speedups(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Ours over each other of its kind, calls over calls and graphs over graphs, where both are right."""
    for ours in rows:
        if ours["name"].removesuffix("+graph") not in SUBJECTS or ours["status"] != "ok":
            continue
        for theirs in rows:
            kind = theirs["graph"] == ours["graph"] and theirs["name"].removesuffix("+graph") not in SUBJECTS
            paired = len(theirs["round_seconds"]) == len(ours["round_seconds"]) > 0
            if kind and paired and theirs["status"] == "ok":
                ratio = paired_speedup(ours["round_seconds"], theirs["round_seconds"])
                yield {"of": ours["name"], "over": theirs["name"], **asdict(ratio)}


def sentences(rows: list[dict[str, Any]], what: str) -> Iterator[str]:
    """Why the command should fail: wrong or unchecked numbers, and calls of ours that did not run."""
    for row in rows:
        if row["status"] == "wrong":
            yield f"{row['label']} is wrong on {what}: {'; '.join(row['reasons'])}"
        elif row["status"] == "unchecked":
            yield f"{row['label']} was not checked on {what}: {row['error']}"
        elif row["status"] == "failed" and row["name"] in SUBJECTS and row["error"] not in EXCUSED:
            yield f"{row['label']} failed on {what}: {row['error']}"


def result_of(race: Race) -> dict[str, Any]:
    rows = [row_of(race, lane) for lane in race.lanes]
    what = f"{race.job.model} {race.job.mode} {race.precision} batch {race.job.batch}"
    return {
        "model": race.job.model, "mode": race.job.mode, "batch": race.job.batch, "image": race.job.image,
        "precision": race.precision, "images": race.images, "check_images": race.checked,
        "output_scale": finite(race.scales.output), "seconds": time.monotonic() - race.started,
        "contenders": rows, "speedups": list(speedups(rows)), "bad": list(sentences(rows, what)),
    }  # fmt: skip


def run(settings: Settings, report: Report, model: str, mode: str, precision: str, batch: int,
        contenders: list[str]) -> None:  # fmt: skip
    if settings.compiles:
        import torch._dynamo.config as dynamo

        dynamo.automatic_dynamic_shapes = False  # type: ignore  # the checked batch may be another one
    job = Job(model, mode, batch, settings.image, threads=torch.get_num_threads())
    race = Race(job, precision, open_device(settings), report)
    quick = [spec for spec in contenders if spec not in COMPILING and not resolve(spec).compiles]
    for spec in quick:
        race.enter(spec)
        race.publish()
    race.rounds("calls and graphs")
    race.publish()
    for spec in contenders:
        if spec not in quick:
            race.enter(spec)
            race.rounds(f"with {spec}")
            race.publish()
