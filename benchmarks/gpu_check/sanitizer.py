"""One of compute-sanitizer's tools over our kernels on small shapes; where the tool is missing, that is the result."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .part import Report
from .plan import Settings
from .process import environment

SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)", re.I)
EXIT_STATUS = 86  # of a run with errors
OURS = "kns=resnet_fused"  # kernels whose mangled name holds it
MOST_LINES = 40


def find() -> str | None:
    """On PATH, or where the toolkit has it."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("compute-sanitizer") or shutil.which(str(Path(home, "bin", "compute-sanitizer")))


def only_ours(program: str) -> list[str]:
    """The option that leaves other libraries' kernels unchecked: its name differs between versions."""
    text = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    for option in ("--kernel-regex", "--kernel-name", "--filter"):
        if option in text:
            return [option, OURS]
    return []


def read(output: str, status: int) -> dict[str, Any]:
    """Errors found and the lines that say so; `bad` where there were any, or where the run itself failed."""
    found = [int(number) for number in SUMMARY.findall(output)]
    lines = [re.sub(r"^=+ ?", "", line).strip() for line in output.splitlines() if line.startswith("====")]
    errors = max(found, default=0)
    bad = []
    if errors:
        bad = [f"{errors} errors: {next((line for line in lines if line and 'COMPUTE-SANITIZER' not in line), '')}"]
    elif status or not found:
        last = (output.strip().splitlines() or ["it said nothing"])[-1]
        bad = [f"the run ended with exit status {status} and {'no summary' if not found else 'no errors'}: {last}"]
    return {"found": True, "errors": errors, "status": status, "lines": lines[:MOST_LINES] if bad else [], "bad": bad}


def run(settings: Settings, report: Report, tool: str) -> None:
    program = find()
    if program is None:
        report.result({"found": False, "reason": "compute-sanitizer is not on PATH and not in CUDA_HOME/bin"})
        return
    # Each tensor in an allocation of its own: within PyTorch's large ones an access past the end would go unnoticed.
    variables = environment(PYTORCH_NO_CUDA_MEMORY_CACHING="1", GPU_CHECK_DEVICE=settings.device)
    command = [program, "--tool", tool, "--error-exitcode", str(EXIT_STATUS), *only_ours(program)]
    workload = [sys.executable, "-m", "gpu_check.sanitized"]
    report.progress(tool)
    try:
        ended = subprocess.run(command + workload, env=variables, text=True, check=False, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, timeout=max(1.0, report.left()))  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{tool} did not end within its time") from None
    print(ended.stdout[-20000:], file=sys.stderr)
    report.result({"command": " ".join(["compute-sanitizer", *command[1:]]), **read(ended.stdout, ended.returncode)})
