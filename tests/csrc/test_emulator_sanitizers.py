"""Kernels under ThreadSanitizer, to which every lane is a thread, and under AddressSanitizer."""

import os
import subprocess
import sys

import pytest
from emulated import KERNELS, NVCC_FLAGS
from emulator import build

pytestmark = [pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not())), pytest.mark.slow]
OPTIONS = {"TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=0"}


def _call(kernels, sanitizer, *arguments, nvcc_flags=()):
    """In a process whose first library is the sanitizer's."""
    runtime = build.sanitizer_runtime(sanitizer)
    environment = os.environ | OPTIONS | {"LD_PRELOAD": runtime}
    if not runtime or subprocess.run([sys.executable, "-c", ""], env=environment, capture_output=True).returncode:
        pytest.skip(f"the {sanitizer} sanitizer does not run here")
    name, sources = f"test_{kernels}_{sanitizer}", [KERNELS / f"{kernels}.cu"]
    library = build.library(name, sources, sanitize=sanitizer, nvcc_flags=[*NVCC_FLAGS, *nvcc_flags])
    command = [sys.executable, KERNELS / "call.py", library, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("launcher, size", [("rotate", "128:"), ("copy", "384:")])
def test_races(launcher, size):
    """A missing barrier, and a copy that is not waited for."""
    right = _call("wrong", "thread", launcher, 1, size, "128:")
    assert (right.returncode, right.stderr) == (0, "")
    wrong = _call("wrong", "thread", launcher, 0, size, "128:")
    assert wrong.returncode != 0 and "data race" in wrong.stderr and "wrong.cu:" in wrong.stderr


NO_RACES = {
    "votes": ("warps", "64:", "512:"),
    "pairs": ("warps", "64:", "64:"),
    "flag": ("warps", "1:", "1:"),
    "syncwarp": ("warps", "256:", "128:"),
    "atomics": ("warps", "256:", "3:", "4:"),
    "row_sums": ("elementwise", "2000:", "5:", 5, 800, 64),
    "total": ("elementwise", "1000:", "1:", "1:", 1000),
    "matmul": ("matmul", 1, "3072:", "1536:", "2048:", 64, 32, 96),
}


@pytest.mark.parametrize("launcher", NO_RACES)
def test_no_races(launcher):
    """Barriers of all kinds order what they should, and so do fences; atomics are no races."""
    kernels, *arguments = NO_RACES[launcher]
    run = _call(kernels, "thread", launcher, *arguments)
    assert (run.returncode, run.stderr) == (0, "")


def test_race_with_a_copy():
    """A product that waits for its tiles one group of copies too late."""
    run = _call("matmul", "thread", *["matmul", *NO_RACES["matmul"][1:]], nvcc_flags=["-DWAIT=1"])
    assert run.returncode != 0 and "data race" in run.stderr and "copy_bytes" in run.stderr


def test_blocks_that_race():
    """Two blocks write the same: an order that the emulator happens to take says nothing."""
    run = _call("wrong", "thread", "bounded", "64:", 64, 2)
    assert run.returncode != 0 and "data race" in run.stderr


def test_memory():
    right = _call("wrong", "address", "read", "1000:", "1:", 999)
    assert (right.returncode, right.stderr) == (0, "")
    wrong = _call("wrong", "address", "read", "1000:", "1:", 1000)
    assert wrong.returncode != 0 and "heap-buffer-overflow" in wrong.stderr and "wrong.cu:" in wrong.stderr
