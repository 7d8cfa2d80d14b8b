import cuda_conv
import pytest
from emulator import build
from emulator.library import Emulated

from resnet_fused import _ext

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
    return Emulated(cuda_conv.build_library())
