"""CIFAR's networks in the race: what eager runs, what fused runs, and what the job says of them."""

import copy

import pytest
import torch
from torch import nn

from resnet_fused import models
from resnet_fused.bench import contenders, job as jobs
from resnet_fused.bench.job import CIFAR, Job
from resnet_fused.cli import build_parser
from resnet_fused.cli import bench as command
from resnet_fused.modules import record


@pytest.mark.parametrize("name, units", (("resnet20", 10), ("plain20", 4)))
def test_eager_and_fused_are_the_same_network(name, units):
    """Equal weights; eager asks nothing of ours, fused runs every unit fused; float64 outputs and gradients to 1e-12.

    Sums of at most 576 terms in another order, through 20 layers of batch norm: 1e-14 was seen.
    """
    job = Job(name, "train", batch=4, image=16)
    eager = jobs.build_model(job)
    start = jobs.build_model(Job(name, "train", batch=4, image=16, seed=1), eager.state_dict())
    fused = contenders.resolve("fused").prepare(start, job)
    assert [type(m) for m in fused.modules()] == [type(m) for m in models.create(name).modules()]
    x, labels = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.arange(4)
    results = []
    for model, expected in ((eager, 0), (fused, units)):
        with record() as records:
            out = jobs.run_step(model.double(), x, labels)
        assert len(records) == expected and all(r.backend == "cpu" for r in records)
        results.append([out, *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*results):
        assert (ours - theirs).abs().max() <= 1e-12 * theirs.abs().max().clamp_min(1e-3)


def test_unfusing_is_undone_and_can_be_copied():
    model = models.create("resnet8")
    types = [type(module) for module in model.modules()]
    twin = copy.deepcopy(jobs.unfuse(model))
    assert [type(m) for m in jobs.fuse(twin).modules()] == types != [type(m) for m in model.modules()]


@pytest.mark.parametrize("arguments, images", (([], [224, 32]), (["--image", "16"], [16, 16])))
def test_each_network_has_its_own_image(arguments, images):
    options = build_parser().parse_args(["bench", "--model", "resnet18", "resnet56", *arguments])
    assert [job.image for job in command.jobs_of(options)] == images


def test_what_the_job_says_of_cifars_networks():
    """resnet20's multiply-adds at 32x32 are 40,551,040; at half the extent a quarter, but for the 640 of fc."""
    job = Job("resnet20", "train", batch=8, image=16)
    assert job.giga_macs == pytest.approx(3 * 8 * ((40_551_040 - 640) / 4 + 640) / 1e9)
    assert (job.classes, Job("resnet50", "train", 1, 224).classes) == (10, 1000)
    for name in (*CIFAR[:2], "resnet18"):
        convs = [m for m in jobs.build_model(Job(name, "train", 1, 32)).modules() if isinstance(m, nn.Conv2d)]
        assert max(c.weight[0].numel() for c in convs) == Job(name, "train", 1, 32).longest_reduction
