"""The engine under AddressSanitizer and UndefinedBehaviorSanitizer, over a table of shapes, types and instruction sets."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CPU = ROOT / "csrc" / "cpu"
DRIVER = Path(__file__).parent / "sanitize" / "driver.cpp"
# -O1 keeps the kernels' compilation within a minute; vectors' alignment is what -fsanitize=alignment is about.
FLAGS = ["-std=c++17", "-O1", "-g1", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")


def _can_sanitize(folder) -> bool:
    source = folder / "empty.cpp"
    source.write_text("int main() { return 0; }\n")
    program = folder / "empty"
    build = subprocess.run([*COMPILER.split(), *FLAGS, source, "-o", program], capture_output=True)
    return build.returncode == 0 and subprocess.run([program], capture_output=True).returncode == 0


@pytest.mark.slow
def test_engine(tmp_path):
    if not COMPILER or not _can_sanitize(tmp_path):
        pytest.skip("there is no C++ compiler with sanitizers here")
    sources = [path for path in sorted(CPU.glob("*.cpp")) if path.name not in ("bn.cpp", "stem.cpp")] + [DRIVER]
    running, objects = [], []
    for source in sources:
        objects.append(tmp_path / f"{source.stem}.o")
        running.append(subprocess.Popen([*COMPILER.split(), *FLAGS, "-c", source, "-o", objects[-1]]))
        if len(running) == 2:  # as many compilers at a time as the build has
            assert running.pop(0).wait() == 0
    assert all(compiler.wait() == 0 for compiler in running)
    program = tmp_path / "driver"
    subprocess.run([*COMPILER.split(), *FLAGS, *objects, "-o", program], check=True)
    # The driver frees its memory; what the C++ runtime keeps is not looked at.
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    run = subprocess.run([program], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    assert run.stdout.strip().endswith("0 failures")
