"""Runs the files of tests/interpreted in processes where Triton's decorators see TRITON_INTERPRET=1."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("name, slow", [
    ("bn_operators", False),
    pytest.param("convolutions", False, marks=pytest.mark.slow),
    *[pytest.param(name, True, marks=pytest.mark.slow) for name in ("bn_operators", "convolutions", "library")],
])  # fmt: skip
def test_by_the_interpreter(name, slow, pytestconfig):
    which = ["--slow", "-m", "slow"] if slow else []
    which += [f"--sample={most}"] if (most := pytestconfig.getoption("--sample")) is not None else []
    file = TESTS / "interpreted" / f"test_{name}.py"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", file, *which]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
