"""All CUDA kernels under AddressSanitizer with UBSan, and under ThreadSanitizer, to which every lane is a thread.

Of the variants one each: float32 for what is bound by memory, bfloat16's smallest tile for the convolutions; and their
products by wgmma.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from build_cache import alone
from emulator import build
from mutants.runner import copy_sources
from mutants.table import MUTANTS
from mutants.target import CONV, CONV_WGMMA, FLOAT32
from package_build import nvcc_flags

pytestmark = [pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not())), pytest.mark.slow]

DRIVER = Path(__file__).parent / "sanitize" / "cuda_driver.cpp"
WORK = build.ROOT / "build" / "sanitized"
SANITIZERS = ("address", "thread")
FAMILIES = ("statistics", "apply", "backward", "stem", "fprop", "dgrad", "wgrad", "wgmma fprop", "wgmma dgrad",
            "wgmma wgrad")  # fmt: skip
# Of threads an order is enough: what is not ordered by a barrier is a race in any.
SCHEDULES = {"address": "random latest", "thread": "random"}
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1", "UBSAN_OPTIONS": "halt_on_error=1"}
RUN = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.run.restype = library.emulator_last_error.restype = ctypes.c_char_p
for schedule in sys.argv[2].split():
    library.emulator_set_schedule(schedule.encode(), ctypes.c_uint64(1))
    for family in sys.argv[3:]:
        problem = library.run(family.encode()) or library.emulator_last_error()
        if problem:
            sys.exit(problem.decode())
"""


@pytest.fixture(autouse=True)
def one_at_a_time():
    """Of several processes that run tests: the copies of the sources are these tests' own."""
    with alone(WORK / "tests"):
        yield


def _environment(sanitizer) -> dict:
    """Of a process whose first library is the sanitizer's."""
    runtime = build.sanitizer_runtime(sanitizer)
    environment = os.environ | OPTIONS | {"LD_PRELOAD": runtime or ""}
    if not runtime or subprocess.run([sys.executable, "-c", ""], env=environment, capture_output=True).returncode:
        pytest.skip(f"the {sanitizer} sanitizer does not run here")
    return environment


def _sources(name, mutant=None) -> Path:
    sources = copy_sources(WORK / name, FLOAT32, mutant)
    CONV.reduce(sources)
    CONV_WGMMA.choose(sources)
    return sources


def _library(sanitizer, mutant=None) -> Path:
    """Of a mutant, its kernels are compiled and the others taken from the library without one."""
    base = _sources("base")
    mutated = _sources(mutant.name, mutant) if mutant else None
    changed = mutant.compiled() if mutant else ()
    sources = [(mutated if kernels in changed else base) / f"{kernels}.cu" for kernels in FLOAT32.kernels]
    host = [DRIVER, base / "conv_unsupported.cpp"]
    cxx_flags = ["-isystem", str(build.cuda_include())]
    return build.library(f"sanitized_{sanitizer}", sources, host, sanitizer, nvcc_flags(), cxx_flags)


def _run(library, sanitizer, *families):
    command = [sys.executable, "-c", RUN, library, SCHEDULES[sanitizer], *families]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=_environment(sanitizer))


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_the_kernels_are_clean(sanitizer):
    _environment(sanitizer)
    library = _library(sanitizer)
    for family in FAMILIES:
        run = _run(library, sanitizer, family)
        assert (run.returncode, run.stderr) == (0, ""), f"{family}: {run.stderr[-4000:]}"


SEEDED = [
    ("thread", "reduce-barrier-channels-last", "backward", "data race"),  # a missing barrier
    ("thread", "mainloop-wait", "fprop", "data race"),  # a copy that is not waited for
    ("thread", "mainloop-wait-wgmma", "wgmma dgrad", "data race"),
    ("address", "sweep-tail-beyond", "statistics", "heap-buffer-overflow"),
]


@pytest.mark.parametrize("sanitizer, name, family, report", SEEDED)
def test_a_seeded_bug_is_reported(sanitizer, name, family, report):
    _environment(sanitizer)
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    run = _run(_library(sanitizer, mutant), sanitizer, family)
    assert run.returncode != 0 and report in run.stderr, run.stderr[-4000:]
