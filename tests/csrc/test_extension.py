"""Loading the extensions, their facts, the choice of instruction set, and threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from resnet_fused import _cpu, _ext


def _python(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    return result.returncode, result.stdout.strip(), result.stderr


def test_facts():
    facts = _ext.cpu_facts()
    assert facts["torch"] == torch.__version__
    assert facts["isa"] in facts["isas_supported"] and set(facts["isas_supported"]) <= set(facts["isas"])
    assert "-ffp-contract=off" in facts["flags"] and facts["compiler"]
    assert _ext.cpu_unavailable_reason() is None


def test_cuda_facts():
    if reason := _ext.cuda_unavailable_reason():
        assert "_cuda" in reason and _ext.cuda_facts() == {}
    else:
        facts = _ext.cuda_facts()
        assert facts["torch"] == torch.__version__ and facts["nvcc"].split(".")[0] == torch.version.cuda.split(".")[0]
        assert all(arch.startswith("sm_") for arch in facts["architectures"])


def test_another_torch_is_refused_before_loading(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.2.3")
    with pytest.raises(ImportError) as error:
        _ext._load("_cpu")
    message = str(error.value)
    assert "1.2.3" in message and _cpu.facts()["torch"] in message and "pip install" in message
    assert "\n" not in message and not isinstance(error.value, ModuleNotFoundError)


def test_a_cuda_extension_of_another_torch_is_a_reason(monkeypatch):
    if not _ext.cuda_facts():
        pytest.skip("the CUDA extension is not built here")
    monkeypatch.setattr(torch, "__version__", "1.2.3")
    module, reason = _ext._try_load("_cuda", ImportError)
    assert module is None and "was built for torch" in reason and "1.2.3" in reason and "pip install" in reason


def test_missing_extension_is_a_reason():
    module, reason = _ext._try_load("_absent")
    assert module is None and "_absent is not built" in reason and "pip install" in reason and "\n" not in reason


@pytest.mark.slow
def test_isa_is_chosen_by_the_environment():
    show = "from resnet_fused import _ext; print(_ext.cpu_facts()['isa'])"
    assert _python(show, RESNET_FUSED_ISA="portable")[1] == "portable"
    code, _, errors = _python(show, RESNET_FUSED_ISA="sse9")
    assert code != 0 and "RESNET_FUSED_ISA must be portable, avx2 or avx512, but got 'sse9'" in errors


def test_unknown_isa():
    with pytest.raises(RuntimeError, match="must be portable, avx2 or avx512"):
        _cpu.set_isa_for_testing("sse9")


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_torch_s(threads):
    """Without OpenMP in the one file that needs it, everything silently runs on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert _cpu.count_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_one_openmp_runtime():
    # In a process of its own: other packages may bring an OpenMP library of theirs.
    show = (
        "import torch; from resnet_fused import _cpu; _cpu.count_threads();"
        "print(len({line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}))"
    )
    assert _python(show)[1] == "1"


@pytest.mark.parametrize("units", [0, 1, 2, 7, 1000, 100_001])
@pytest.mark.parametrize("elements", [1, 64, 200_000])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_chunks_partition_the_units(units, elements, threads):
    chunks = _cpu.plan_chunks(units, elements, threads)
    assert 1 <= len(chunks) <= threads
    assert chunks[0][0] == 0 and chunks[-1][1] == units
    assert all(a[1] == b[0] for a, b in zip(chunks, chunks[1:]))
    sizes = [end - begin for begin, end in chunks]
    assert max(sizes) - min(sizes) <= 1
    if units * elements < 2 * 32768:  # not worth a second thread
        assert len(chunks) == 1
    elif units >= threads and units * elements >= threads * 32768:
        assert len(chunks) == threads
