"""Memory of large results: used again without page faults, bounded, given back, and refused as torch refuses it."""

import gc
import resource

import pytest
import torch

import resnet_fused
from resnet_fused import _ext, ops

_cpu = _ext._cpu
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _empty():
    gc.collect()
    _cpu.release_pool()
    yield
    _cpu.release_pool()


def _result(mib):
    """A tensor of so many MiB that an operator made."""
    return ops.get("cpu").bn_apply(torch.zeros(1, 16, 128 * mib, 128), torch.ones(4, 16), False)


def _faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_training_steps_fault_no_memory_in():
    block, x = resnet_fused.BasicBlock(64, 64), torch.randn(8, 64, 28, 28).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()

    def step():
        with resnet_fused.backend("cpu"):
            out = block(x)
        out.backward(out.detach())

    for _ in range(3):
        step()
    before = _faults()
    for _ in range(10):
        step()
    # Each of a step's large results, eight or so, is 392 pages. Some pages are Python's.
    assert _faults() - before < 10 * 392


def test_memory_is_used_again():
    held = _cpu.pool_bytes()
    first = _result(8)
    address = first.data_ptr()
    assert _cpu.pool_bytes() - held == 8 * MIB
    del first
    assert _result(8).data_ptr() == address
    assert _cpu.pool_bytes() - held == 8 * MIB
    _cpu.release_pool()
    assert _cpu.pool_bytes() == held


def test_at_most_half_as_much_again_as_was_in_use_is_held():
    held = _cpu.pool_bytes()
    for mib in (8, 12, 18, 28, 42):  # none fits into the memory of those before it
        _result(mib)
        assert _cpu.pool_bytes() - held <= 1.5 * mib * MIB


def test_what_there_is_no_memory_for():
    """Eager's words, and what is held stays within its bound."""
    held = _cpu.pool_bytes()
    x, weight, side = torch.zeros(1, 16, 1, 1), torch.zeros(16, 16, 1, 1), 1 << 20
    conv = ((1, 1), (side, side), (1, 1), 1)
    with pytest.raises(RuntimeError, match="can't allocate memory: you tried to allocate .* bytes"):
        ops.get("cpu").conv_fprop(x, weight, *conv, None, False, False, None, None, None, False)
    for mib in (8, 12, 18, 28):
        _result(mib)
    assert _cpu.pool_bytes() - held <= 1.5 * 28 * MIB
