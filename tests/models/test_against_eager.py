"""A network of every family, fused against the same module under backend("eager"), in float64."""

import copy

import pytest
import torch
from families import FAMILIES, build, images, step

import resnet_fused
from resnet_fused import models
from resnet_fused.modules import record


def worst(ours, theirs):
    """The largest difference of the named tensors, relative to each tensor's largest value, and its name.

    A bias before batch statistics has gradient zero: eager's is rounding, relative to the gradient of the shift behind.
    """
    assert ours.keys() == theirs.keys()
    differences = []
    for key, tensor in theirs.items():
        scale = tensor.abs().max()
        if key.startswith("gradient of features.") and key.endswith(".bias"):
            index = int(key.split(".")[1])
            scale = max(scale, theirs.get(f"gradient of features.{index + 1}.bias", scale).abs().max())
        difference = (ours[key].double() - tensor.double()).abs().max() / max(scale, 1e-300)
        differences.append((difference.item(), key))
    return max(differences)


SLOW = ("bottlenecks v1.5", "resnext", "wide")  # bottlenecks as v1's; tests/test_networks.py has v1.5


@pytest.mark.parametrize("mode", ("train", "eval"))
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in FAMILIES])
def test_step(name, mode):
    """Outputs, every gradient and every buffer within 1e-9 of eager's.

    Rounding of 1e-16 an operation, times the gain of some twenty batch norms, as in tests/test_networks.py. Some 1e-13
    are seen.
    """
    fused, size, units = build(name)
    fused.train(mode != "eval")
    twin = copy.deepcopy(fused)
    with record() as records:
        ours = step(fused, images(size, batch=3))
    assert [r.backend for r in records] == ["cpu"] * units
    with resnet_fused.backend("eager"), record() as records:
        theirs = step(twin, images(size, batch=3))
    assert {r.backend for r in records} <= {None}
    difference = worst(ours, theirs)
    print(f"{name} {mode}: largest difference {difference[0]:.2e}, {difference[1]}")
    assert difference[0] <= 1e-9, difference


@pytest.mark.slow
@pytest.mark.parametrize("name, units", (("resnet34", 17), ("resnet50", 17), ("plain34", 5), ("resnet56", 28),
                                         ("plain56", 4), ("wide_resnet50_2", 17)))  # fmt: skip
def test_output_of_whole_networks(name, units):
    """In training mode, as test_step."""
    torch.manual_seed(0)
    model = models.create(name, num_classes=10).double()
    x = images(models.entry(name).image if name[-2:] == "56" else 64, batch=2)
    with torch.no_grad(), record() as records:
        ours = model(x)
    assert [r.backend for r in records] == ["cpu"] * units
    with torch.no_grad(), resnet_fused.backend("eager"):
        theirs = model(x)
    assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()
