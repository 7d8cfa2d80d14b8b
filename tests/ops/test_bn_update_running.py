"""The update of running statistics in place: every backend against eager's batch norm, and what it may be given."""

import copy

import cuda_emulated
import pytest
import torch
from operator_cases import DTYPES
from torch import nn

from resnet_fused import ops

BACKENDS = ["reference", "cpu", "library", cuda_emulated.BACKEND]
CHANNELS = (5, 1, 300, 16)
NAMESPACE = torch.ops.resnet_fused


def _norms(dtype, channels=CHANNELS, momentum=0.3):
    generator = torch.Generator().manual_seed(1)
    norms = []
    for C in channels:
        bn = nn.BatchNorm2d(C, momentum=momentum).to(dtype)
        bn.running_mean.copy_(torch.randn(C, generator=generator, dtype=torch.float64))
        bn.running_var.copy_(torch.rand(C, generator=generator, dtype=torch.float64) + 0.5)
        norms.append(bn)
    return norms


def _images(channels=CHANNELS, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(3, C, 4, 2, generator=generator, dtype=torch.float64).to(dtype) * 2 + 1 for C in channels]


def _stats(images):
    return [ops.get("reference").bn_statistics(x) for x in images]


def _update(kernels, norms, images, stats=None):
    kernels.bn_update_running(
        _stats(images) if stats is None else stats, [x.numel() // x.shape[1] for x in images],
        [bn.momentum for bn in norms], [bn.running_mean for bn in norms], [bn.running_var for bn in norms],
        [bn.num_batches_tracked for bn in norms],
    )  # fmt: skip


def _buffers(norms):
    return [buffer for bn in norms for buffer in bn.buffers()]


def _assert_as_eager(norms, truth, ulps):
    """`ulps`: roundings of a running statistic, relative to its terms, of which none exceeds 8."""
    for ours, theirs in zip(_buffers(norms), _buffers(truth)):
        if ours.dtype == torch.int64:
            assert torch.equal(ours, theirs)
        else:
            atol = ulps * 8 * torch.finfo(ours.dtype).eps / 2
            torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=atol)


@pytest.mark.parametrize("momentum", (0.1, 0.3, 1.0, -0.5))
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_as_eager(backend, dtype, momentum):
    """Running statistics in any dtype, behind statistics in float32 or float64."""
    images = _images()
    norms, truth = _norms(dtype, momentum=momentum), [bn.double() for bn in _norms(dtype, momentum=momentum)]
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    _update(ops.get(backend), norms, images, [s.to(acc) for s in _stats(images)])
    for bn, x in zip(truth, images):
        bn(x)
    # One rounding to the dtype and one of the float32 statistics; the reference rounds its terms too. In float64
    # eager's own sums, of 24 elements, are as far off.
    _assert_as_eager(norms, truth, ulps=24 if dtype == torch.float64 else 4 if backend == "reference" else 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_norm_that_occurs_twice_is_updated_twice(backend):
    """In the order of the list, and as often as there are places for it in a launch and more."""
    (bn,), images = _norms(torch.float64, (7,)), _images((7,) * 19)
    truth = copy.deepcopy(bn)
    _update(ops.get(backend), [bn] * 19, images)
    for x in images:
        truth(x)
    assert bn.num_batches_tracked == 19
    _assert_as_eager([bn], [truth], ulps=64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_than_a_launch_takes(backend):
    channels = tuple(range(1, 20))
    norms, images = _norms(torch.float64, channels), _images(channels)
    truth = copy.deepcopy(norms)
    _update(ops.get(backend), norms, images)
    for bn, x in zip(truth, images):
        bn(x)
    _assert_as_eager(norms, truth, ulps=4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_slices_of_larger_tensors(backend):
    """Elements between those of a slice stay as they are."""
    (bn,), images = _norms(torch.float64, (6,)), _images((6,))
    truth = copy.deepcopy(bn)
    wide = torch.stack((bn.running_mean, torch.full((6,), 7.0)), 1)
    bn.running_mean = wide[:, 0]
    _update(ops.get(backend), [bn], images, [torch.stack(list(_stats(images)[0]), 1).t()])
    truth(images[0])
    _assert_as_eager([bn], [truth], ulps=4)
    assert (wide[:, 1] == 7).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_counters_are_given_or_not(backend):
    norms, images = _norms(torch.float64), _images()
    counters = [torch.tensor(3), torch.tensor(5)]
    arguments = [[bn.running_mean for bn in norms], [bn.running_var for bn in norms]]
    ops.get(backend).bn_update_running(_stats(images), [24] * 4, [0.1] * 4, *arguments, [])
    assert all(bn.num_batches_tracked == 0 for bn in norms)
    ops.get(backend).bn_update_running(_stats(images), [24] * 4, [0.1] * 4, *arguments, counters)
    assert [int(counter) for counter in counters] == [4, 6]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_channel_and_versions_advance(backend):
    norms, images = _norms(torch.float32, (4,)), _images((4,))
    images[0][:, 2] = float("nan")
    versions = [buffer._version for buffer in _buffers(norms)]
    _update(ops.get(backend), norms, images)
    assert norms[0].running_mean.isnan().tolist() == norms[0].running_var.isnan().tolist() == [False, False, True, False]
    assert all(buffer._version > before for buffer, before in zip(_buffers(norms), versions))


def test_opcheck():
    images = _images((3, 4), torch.float32)
    norms = _norms(torch.float32, (3, 4))
    arguments = (
        _stats(images), [24, 24], [0.1, 0.2], [bn.running_mean for bn in norms], [bn.running_var for bn in norms],
        [bn.num_batches_tracked for bn in norms],
    )  # fmt: skip
    report = torch.library.opcheck(NAMESPACE.bn_update_running.default, arguments)
    assert set(report.values()) == {"SUCCESS"}


STATS, VECTOR, COUNTER = torch.zeros(2, 3), torch.zeros(3), torch.tensor(0)
ERRORS = {
    "nothing": (([], [], [], [], [], []), "expected at least one tensor|no tensor arguments"),
    "no count": (([STATS], [], [0.1], [VECTOR], [VECTOR], []), "expected a count, a momentum and running statistics"),
    "one row": (([STATS[:1]], [4], [0.1], [VECTOR], [VECTOR], []), r"stats should have size \[2, C\]"),
    "half": (([STATS.half()], [4], [0.1], [VECTOR], [VECTOR], []), "Float or Double"),
    "other channels": (
        ([STATS], [4], [0.1], [torch.zeros(4)], [VECTOR], []), "running_mean should contain 3 elements not 4",
    ),
    "another counter": (([STATS], [4], [0.1], [VECTOR], [VECTOR], [COUNTER.int()]), "expected a counter to be one Long"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    arguments, words = ERRORS[case]
    with pytest.raises(RuntimeError, match=words):
        NAMESPACE.bn_update_running(*arguments)


def test_inference_tensors_are_eagers_error():
    with torch.inference_mode():
        (bn,), images = _norms(torch.float32, (3,)), _images((3,))
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode is not allowed"):
        _update(ops.get("cpu"), [bn], images, [torch.zeros(2, 3)])
