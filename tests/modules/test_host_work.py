"""What a block asks of the host: every operator called from Python, of which it can call few in a GPU's step."""

import pytest
import torch
from eager_pairs import image, pair
from operator_calls import Calls

from resnet_fused import dispatch

def _training_step(kind, backend):
    _, fused = pair(kind)
    x = image(kind).requires_grad_()
    with dispatch.backend(backend), Calls() as calls:
        y = fused(x)
        y.backward(torch.ones_like(y))
    return calls.working()


@pytest.mark.parametrize(
    "kind, units, projection", (("basic", 2, 0), ("bottleneck", 3, 0), ("bottleneck_projection", 3, 1))
)
def test_a_training_step_of_a_block(kind, units, projection):
    """Per convolution two operators forward and two backward; per block its end, its beginning and the statistics."""
    convolutions = units + projection
    expected = {
        "conv_fprop": convolutions, "bn_finalize": convolutions, "bn_apply_mask": 1, "bn_update_running": 1,
        "bn_backward_mask_reduce": 1, "bn_backward_finalize": convolutions, "conv_backward": convolutions,
    }  # fmt: skip
    if projection:
        expected["aten::stack"] = 1  # the sums of the projection's batch norm, of three
    assert _training_step(kind, "cpu") == expected


def test_a_training_step_of_a_stem():
    assert _training_step("stem", "cpu") == {
        "conv_fprop": 1, "bn_finalize": 1, "stem_pool": 1, "bn_update_running": 1, "stem_pool_backward_reduce": 1,
        "bn_backward_finalize": 1, "stem_pool_backward_apply": 1, "conv_backward": 1,
    }  # fmt: skip


def test_a_checkpoint_saves_one_scalar_more():
    _, fused = pair("basic")
    with Calls() as plain:
        fused(image())
    with torch.autograd.graph.save_on_cpu(), Calls() as hooked:
        fused(image())
    assert "aten::zeros" not in plain.calls and hooked.calls.keys() - plain.calls.keys() >= {"aten::zeros"}


@pytest.mark.parametrize("kind", ("basic", "bottleneck_projection", "stem"))
def test_eager_by_choice_does_what_eager_does(kind):
    eager, fused = pair(kind)
    with Calls() as expected:
        eager(image(kind))
    with dispatch.backend("eager"), Calls() as calls:
        fused(image(kind))
    assert calls.calls == expected.calls


@pytest.mark.parametrize("kind", ("basic", "stem"))
def test_inference_of_a_frozen_unit(kind):
    (_, fused), x = pair(kind), image(kind)
    with torch.no_grad(), Calls() as calls:
        fused.eval()(x)
    if kind == "basic":
        assert calls.working() == {"frozen_chains": 1}
    assert sum(calls.working().values()) <= 6
