"""The emulator's other memory: constant and device variables, generic pointers, parameters by address, cudaMalloc."""

import pytest
import torch
from emulated import load, run
from emulator import build

pytestmark = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))


@pytest.fixture(scope="module")
def spaces():
    return load("spaces")


@pytest.fixture
def tensors():
    return torch.arange(32, dtype=torch.int32), torch.full((32,), -5, dtype=torch.int32)


def test_variables(spaces, tensors):
    x, out = tensors
    run(spaces, "variables", x, out, 0)
    assert out.tolist() == [i * (i % 4 + 1) + 10 + i % 8 for i in range(32)]
    for index, where in [(-1, "4 bytes before the beginning"), (1, "0 bytes past the end")]:
        with pytest.raises(RuntimeError, match=f"{where} of an allocation of 32 bytes"):
            run(spaces, "variables", x, out, index)


def test_generic_pointers(spaces, tensors):
    x, out = tensors
    run(spaces, "generic", x, out, 0)
    assert torch.equal(out, x)
    run(spaces, "generic", x, out, 1)
    assert torch.equal(out, x + 100)
    run(spaces, "generic", x, out, 2)
    assert out.tolist() == [2, 3, 0, 1] * 8


def test_parameter_by_address(spaces, tensors):
    _, out = tensors
    run(spaces, "parameter", out)
    assert out[:8].tolist() == [1, 0, 3, 2, 5, 4, 7, 6]


def test_allocated_memory(spaces, tensors):
    x, out = tensors
    run(spaces, "allocated", x, out, 0)
    assert torch.equal(out, x + 100)
    with pytest.raises(RuntimeError, match="0 bytes past the end of an allocation of 124 bytes"):
        run(spaces, "allocated", x, out, 1)
