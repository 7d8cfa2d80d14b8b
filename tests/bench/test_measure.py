"""Bytes saved for backward against a count by hand, and the errors against float64."""

import pytest
import torch
from torch import nn

from resnet_fused.bench import measure, oracle
from resnet_fused.bench.job import Job
from resnet_fused.bench.oracle import Answer
from resnet_fused.bench.verdict import Errors


def test_saved_bytes_count_each_storage_once_and_leave_parameters_out():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10))
    images, labels = torch.randn(2, 3, 4, 4), torch.tensor([1, 2])
    # conv saves its input; ReLU its result, which Linear saves again as a view; cross entropy: log softmax, labels
    # and the total weight, a scalar.
    expected = 4 * (2 * 3 * 16) + 4 * (2 * 8 * 16) + 4 * (2 * 10) + 8 * 2 + 4
    assert measure.saved_for_backward(model, images, labels) == expected


def test_peak_is_at_least_what_is_resident():
    assert measure.peak_resident_bytes() >= measure.resident_bytes() * 0.99 > 2**20


def test_a_forgotten_peak_does_not_count():
    try:
        open("/proc/self/clear_refs", "w").close()
    except OSError:
        pytest.skip("this machine does not let a process forget its peak")
    large = torch.ones(64 * 2**20 // 4)
    del large
    before = measure.peak_resident_bytes()
    measure.forget_peak()
    assert measure.peak_resident_bytes() < before - 48 * 2**20


def test_not_finite_is_none():
    exact = torch.zeros(2, dtype=torch.float64)
    assert oracle.largest_error(torch.tensor([0.0, float("nan")]), exact) is None
    assert oracle.largest_error(torch.tensor([0.0, float("inf")]), exact) is None
    assert oracle.largest_error(torch.tensor([0.5, -2.0]), exact) == 2.0


def test_a_gradient_that_is_not_there_has_no_error():
    exact = Answer(torch.zeros(1, dtype=torch.float64), {"a": torch.ones(1).double(), "b": torch.ones(1).double()})
    errors = oracle.errors_of(Answer(torch.zeros(1), {"a": torch.tensor([1.5])}), exact)
    assert errors.gradients == {"a": 0.5}


def test_errors_of_several_steps():
    """Of the outputs the largest; of a gradient the least and the largest; one that is not finite anywhere is none."""
    zero = Answer(torch.zeros(1).double(), {name: torch.zeros(1).double() for name in "abc"})
    steps = [Answer(torch.tensor([o]), {"a": torch.tensor([a]), "b": torch.tensor([b])})
             for o, a, b in ((1.0, 3.0, 5.0), (2.0, 4.0, float("nan")))]  # fmt: skip
    errors = oracle.errors_of_all(steps, [zero, zero])
    assert errors == Errors(2.0, {"a": 3.0, "b": None}, {"a": 4.0, "b": None})
    assert oracle.errors_of_all(steps[:1], [zero]) == Errors(1.0, {"a": 3.0, "b": 5.0})
    infinite = Answer(torch.tensor([float("inf")]), steps[0].gradients)
    assert oracle.errors_of_all([steps[0], infinite], [zero, zero]).output is None


@pytest.mark.parametrize("job, steps", (
    (Job("resnet56", "train", 32, 16), [(0, 32), (0, 4), (4, 8), (8, 12), (12, 16), (16, 20)]),
    (Job("plain20", "train", 6, 32), [(0, 6), (0, 4), (4, 6)]), (Job("resnet20", "train", 5, 4), [(0, 5), (0, 4)]),
    (Job("resnet56", "train", 4, 16), [(0, 4)]), (Job("resnet56", "infer", 32, 16), [(0, 32)]),
    (Job("resnet18", "train", 16, 64), [(0, 16)]),
))  # fmt: skip
def test_steps_that_are_checked(job, steps):
    """CIFAR's networks also on small batches, in which no ReLU may be within rounding of zero."""
    assert [(step.start, step.stop) for step in oracle.steps_to_check(job)] == steps


def test_running_statistics_become_the_images_own():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    images = torch.randn(2, 3, 5, 5) * 3 + 1
    oracle.settle_running_statistics(model, images)
    with torch.no_grad():
        y = model(images)
    assert torch.allclose(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-5) and not model.training
    assert model[1].momentum == 0.1
