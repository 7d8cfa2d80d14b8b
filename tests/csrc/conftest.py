import pytest

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
