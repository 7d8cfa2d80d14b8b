"""The rules that keep csrc in layers, and the vector kernels from leaking into other code."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
SOURCES = sorted(p for p in CSRC.rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"})
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)


def _includes(path):
    return [(kind == "<", name) for kind, name in INCLUDE.findall(path.read_text())]


def _named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(CSRC)))


def _below(*folders):
    return [p for p in SOURCES if p.relative_to(CSRC).parts[0] in folders]


def test_there_are_sources():
    assert len(_below("cpu")) > 10 and len(_below("torch")) > 5 and _below("cuda")


@_named(_below("common", "cpu", "cuda"))
def test_kernels_know_nothing_of_torch(path):
    for system, name in _includes(path):
        assert not re.match(r"(torch|ATen|c10|pybind11)\b|Python\.h", name), name
        if not system:
            below = (CSRC / path.relative_to(CSRC).parts[0], CSRC / "common")
            assert any((path.parent / name).resolve().is_relative_to(folder) for folder in below), name


@_named([p for p in SOURCES if p.name != "cpu_module.cpp" and p.name != "cuda_module.cpp"])
def test_light_includes(path):
    """The umbrella headers cost 20 s a file."""
    for _, name in _includes(path):
        assert name not in ("torch/extension.h", "torch/all.h", "torch/torch.h", "ATen/ATen.h"), name
        assert not name.startswith(("pybind11/", "Python")), name


@_named(SOURCES)
def test_assembly_only_in_arch(path):
    if "arch" not in path.parts:
        assert not re.search(r"\b(asm|__asm__)\b\s*(volatile|__volatile__)?\s*\(", path.read_text())


@_named(SOURCES)
def test_a_file_is_short(path):
    assert len(path.read_text().splitlines()) <= 400


def test_schemas_are_in_one_file():
    assert [p.name for p in SOURCES if re.search(r"TORCH_LIBRARY(_FRAGMENT)?\(", p.read_text())] == ["library.cpp"]


def test_one_file_has_threads():
    users = [p.name for p in SOURCES if "ATen/Parallel.h" in p.read_text() or "omp.h" in p.read_text()]
    assert users == ["parallel.cpp"]


def _closure(path):
    """Project files that `path` includes, itself among them."""
    found, queue = set(), [path]
    while queue:
        current = queue.pop()
        if current not in found:
            found.add(current)
            queue += [(current.parent / name).resolve() for system, name in _includes(current) if not system]
    return found


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_vector_kernels_include_nothing_inline(isa):
    """A std function compiled for AVX-512 is a weak symbol: linked in, it would run on a CPU without."""
    path = CSRC / "cpu" / f"isa_{isa}.cpp"
    files = _closure(path)
    system = {name for file in files for is_system, name in _includes(file) if is_system}
    assert system <= {"stdint.h", "immintrin.h"}
    text = path.read_text()
    if isa != "portable":
        assert text.rindex("#pragma GCC target") > text.rindex("kernels.h")
        assert text.rindex("#pragma GCC target") < text.index("simd/table.h")


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_vector_kernels_define_one_symbol(isa):
    objects = sorted(ROOT.glob(f"build/temp*/csrc/cpu/isa_{isa}.o"))
    if not objects or not shutil.which("nm"):
        pytest.skip("the build's object files or nm are not here")
    symbols = subprocess.run(["nm", "-C", objects[-1]], capture_output=True, text=True, check=True).stdout.splitlines()
    shared = [line.split(maxsplit=1)[-1] for line in symbols if not re.search(r" [tTrbdU] ", line[:20])]
    assert [name.split()[-1] for name in shared] == [f"resnet_fused::cpu::{isa}::kernels"]
