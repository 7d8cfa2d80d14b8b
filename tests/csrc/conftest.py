from pathlib import Path

import pytest
from emulator import build
from emulator.library import Emulated

from resnet_fused import _ext

CUDA = Path(__file__).resolve().parents[2] / "csrc" / "cuda"

CPU_FACTS = _ext.cpu_facts()


@pytest.fixture(params=CPU_FACTS.get("isas_supported", []))
def isa(request):
    """Each instruction set that this machine can run, in turn."""
    from resnet_fused import _cpu

    before = _cpu.isa()
    _cpu.set_isa_for_testing(request.param)
    yield request.param
    _cpu.set_isa_for_testing(before)


@pytest.fixture(scope="session")
def cuda_conv_library():
    """The CUDA convolutions, emulated."""
    if build.why_not():
        pytest.skip(build.why_not())
    kernels = [CUDA / f"conv_{name}.cu" for name in ("fprop", "dgrad", "wgrad", "merge")]
    host = [CUDA / "conv_unsupported.cpp", Path(__file__).parent / "cuda_conv_entry.cpp"]
    cxx_flags = ["-isystem", str(build.cuda_include())]
    return Emulated(build.library("cuda_conv", kernels, host, nvcc_flags=["-fmad=false"], cxx_flags=cxx_flags))
