"""tests/gpu, run by pytest in this process, so that its counts are known at any time."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from typing import Any

import pytest

from .part import Report
from .plan import Settings
from .process import ROOT

EVERY = 5.0  # seconds between two counts
MOST_NAMED = 50
OUTCOMES = ("passed", "failed", "skipped", "error")


class Counter:
    """A pytest plugin: counts, and the failed tests by name with the last line of why."""

    def __init__(self, report: Report) -> None:
        self.report, self.said = report, 0.0
        self.counts = dict.fromkeys(OUTCOMES, 0)
        self.failures: list[dict[str, str]] = []
        self.reasons: dict[str, int] = {}  # of skipping

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" and report.passed:
            self.counts["passed"] += 1
        elif report.skipped:
            self.counts["skipped"] += 1
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        elif report.failed:
            self.count_failure("failed" if report.when == "call" else "error", report)
        if time.monotonic() - self.said > EVERY:
            self.say()

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.count_failure("error", report)

    def count_failure(self, outcome: str, report: Any) -> None:
        self.counts[outcome] += 1
        crash = getattr(report.longrepr, "reprcrash", None)
        lines = (crash.message if crash else str(report.longrepr)).strip().splitlines()
        if len(self.failures) < MOST_NAMED:
            self.failures.append({"test": report.nodeid, "why": lines[0] if crash else lines[-1]})

    def say(self) -> None:
        self.said = time.monotonic()
        wrong = self.counts["failed"] + self.counts["error"]
        bad = [f"{wrong} tests failed, {self.failures[0]['test']} first"] if self.failures else []
        if not any(self.counts.values()):
            bad = ["no test ran"]
        self.report.result({"counts": self.counts, "failures": self.failures, "skips": self.reasons, "bad": bad})
        self.report.progress(", ".join(f"{count} {name}" for name, count in self.counts.items()))


def workers() -> int:
    """Test processes, each with its own context on the device."""
    return min(8, len(os.sched_getaffinity(0)))


def run(settings: Settings, report: Report, arguments: list[str], backend: str | None = None) -> None:
    """Failed tests are a result; a pytest that cannot run is an error."""
    os.environ["RESNET_FUSED_GPU_TESTS"] = backend or settings.backend  # read by tests/gpu/on_device.py
    counter = Counter(report)
    # Most of a test is float64 on the CPU. The emulator's library is built once, in one process.
    parallel = [] if settings.emulated or find_spec("xdist") is None else ["-n", str(workers())]
    status = pytest.main(["-q", *parallel, "--no-header", "-p", "no:cacheprovider", "--rootdir", str(ROOT),
                          str(ROOT / "tests" / "gpu"), *arguments], plugins=[counter])  # fmt: skip
    counter.say()
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {pytest.ExitCode(status).name}")
