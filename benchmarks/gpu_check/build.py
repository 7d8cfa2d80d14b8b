"""Builds the extensions in place, the CUDA one for this very device."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

from .part import Report
from .plan import Settings
from .process import ROOT


def run(settings: Settings, report: Report) -> None:
    start = time.monotonic()
    if settings.emulated:
        report.progress("the emulator's library")
        import cuda_emulated

        cuda_emulated.load()
        report.result({"architectures": "8.0", "seconds": time.monotonic() - start})
        return
    import torch

    architectures = architecture(*torch.cuda.get_device_capability())
    report.progress(f"the extensions, for {architectures}")
    compile_for(architectures)
    report.result({"architectures": architectures, "seconds": time.monotonic() - start, **loaded()})


def architecture(major: int, minor: int) -> str:
    """As TORCH_CUDA_ARCH_LIST names it: machine code for this device alone, with Hopper's own instructions."""
    return f"{major}.{minor}" + "a" * ((major, minor) == (9, 0))


def compile_for(architectures: str) -> None:
    """setup.py build_ext --inplace; what it says goes to the part's log."""
    jobs = str(len(os.sched_getaffinity(0)))
    chosen = {"TORCH_CUDA_ARCH_LIST": architectures, "RESNET_FUSED_CUDA": "1", "MAX_JOBS": jobs}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    build = subprocess.run(command, cwd=ROOT, env={**os.environ, **chosen}, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)  # fmt: skip
    print(build.stdout[-20000:], file=sys.stderr)
    if build.returncode:
        raise RuntimeError(f"the build failed: {first_error(build.stdout)}")


def first_error(text: str) -> str:
    """The first line that names an error, else the last one."""
    lines = text.strip().splitlines() or ["it said nothing"]
    return next((line.strip() for line in lines if re.search(r"(?i)\berror:|^RESNET_FUSED_CUDA=", line)), lines[-1])


def loaded() -> dict[str, object]:
    """What the extension says of itself; raises where it cannot be used after all."""
    from resnet_fused import _ext, backends

    reason = backends.available()["cuda"]
    if reason is not None:
        raise RuntimeError(reason)
    return {"extension": _ext.cuda_facts()}
