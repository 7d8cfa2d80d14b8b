"""The kernels under sanitizers, over a table of shapes, types, instruction sets, sizes of caches and numbers of threads."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from resnet_fused import _ext

ROOT = Path(__file__).resolve().parents[2]
CPU = ROOT / "csrc" / "cpu"
DRIVER = Path(__file__).parent / "sanitize" / "driver.cpp"
# -O1: the sanitized kernels of an instruction set take three minutes to compile, with -O2 far more.
FLAGS = ["-std=c++17", "-O1", "-g1", "-ffp-contract=off", "-pthread", "-Wno-psabi"]
ADDRESS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
THREAD = ["-fsanitize=thread"]
COMPILER = (os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or "").split()
# The driver frees its memory; what the C++ runtime keeps is not looked at.
ENVIRONMENT = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}

KIB = 2**10
# (threads, L2, L3, types): a usual machine; caches so small that everything is cut into blocks and strips; and in
# between, where types differ in nothing but how much is cut.
MACHINES = [
    (1, 1024 * KIB, 32768 * KIB, "all"),
    (8, 16 * KIB, 64 * KIB, "all"),
    (1, 16 * KIB, 256 * KIB, "float32"),
    (2, 128 * KIB, 1024 * KIB, "float32"),
    (3, 256 * KIB, 8192 * KIB, "float32"),
]
PLANS = {"own-block", "own-blocks", "shared-block", "shared-blocks"}


def _can_sanitize(folder, flags) -> bool:
    if not COMPILER:
        return False
    source, program = folder / "empty.cpp", folder / "empty"
    source.write_text("int main() { return 0; }\n")
    build = subprocess.run([*COMPILER, *flags, source, "-o", program], capture_output=True)
    return build.returncode == 0 and subprocess.run([program], capture_output=True).returncode == 0


def _flags(source, flags) -> list[str]:
    """Kernels that this machine cannot run are compiled to be linked, as fast as can be."""
    isa = source.stem.removeprefix("isa_")
    runs = not source.stem.startswith("isa_") or isa in _ext.cpu_facts().get("isas_supported", (isa,))
    return [*FLAGS, *flags] if runs else [*FLAGS, "-O0"]


def _build(folder, flags) -> Path:
    running, objects = [], []
    engine = sorted(source for source in CPU.glob("*.cpp") if source.name != "caches.cpp")  # the driver says how large
    for source in [*engine, DRIVER]:
        objects.append(folder / f"{source.stem}.o")
        running.append(subprocess.Popen([*COMPILER, *_flags(source, flags), "-c", source, "-o", objects[-1]]))
        if len(running) == 2:  # as many compilers at a time as the build has
            assert running.pop(0).wait() == 0
    assert all([compiler.wait() == 0 for compiler in running])
    program = folder / "driver"
    subprocess.run([*COMPILER, *FLAGS, *flags, *objects, "-o", program], check=True)
    return program


def _run(program, order, machines) -> set[str]:
    """The plans of Winograd's algorithm that were run."""
    plans = set()
    for machine in machines:
        arguments = [order, *map(str, machine)]
        run = subprocess.run([program, *arguments], capture_output=True, text=True, env=ENVIRONMENT)
        assert run.returncode == 0, f"{arguments}\n{run.stdout[-2000:]}{run.stderr[-4000:]}"
        *_, planned, verdict = run.stdout.strip().splitlines()
        assert verdict.endswith(" runs, 0 failures")
        plans |= set(planned.removeprefix("plans:").split())
    return plans


@pytest.mark.slow
def test_memory(tmp_path):
    """AddressSanitizer and UndefinedBehaviorSanitizer; the last worker's memory ends where the workspace does."""
    if not _can_sanitize(tmp_path, ADDRESS):
        pytest.skip("no C++ compiler here has AddressSanitizer and UndefinedBehaviorSanitizer")
    assert _run(_build(tmp_path, ADDRESS), "serial", MACHINES) == PLANS


@pytest.mark.slow
def test_threads(tmp_path):
    """ThreadSanitizer: whatever threads share is written by one, or before the others start, whatever its type."""
    if not _can_sanitize(tmp_path, THREAD):
        pytest.skip("no C++ compiler here has ThreadSanitizer, or this kernel's address space does not suit it")
    assert _run(_build(tmp_path, THREAD), "threads", [(3, 1024 * KIB, 1024 * KIB, "float32")]) == PLANS - {"own-block"}
