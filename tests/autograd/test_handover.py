"""Consecutive chains hand a masked gradient on with its sums: where they may, and with the same gradients."""

import dataclasses

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from chains import MARGIN, draw
from operator_calls import Calls
from problems import ChainProblem, ConvSize

from resnet_fused.autograd import handover, residual_chain

BACK = ChainProblem("back", 2, 6, 7, 8, (ConvSize(6, 1), ConvSize(6, 3), ConvSize(6, 1)), "identity")
FRONTS = {
    "identity": ChainProblem("identity", 2, 6, 7, 8, (ConvSize(6, 3), ConvSize(6, 3)), "identity"),
    "projection": ChainProblem("projection", 2, 4, 7, 8, (ConvSize(5, 3), ConvSize(6, 3)), "projection"),
    "given": ChainProblem("given", 2, 6, 7, 8, (ConvSize(6, 3), ConvSize(6, 1)), "given"),
}  # fmt: skip
SMALL_FRONT = ChainProblem("small_front", 2, 2, 3, 4, (ConvSize(2, 3), ConvSize(2, 1)), "identity")
SMALL_BACK = ChainProblem("small_back", 2, 2, 3, 4, (ConvSize(2, 1), ConvSize(2, 3)), "identity")
# Float64 sums of some hundred terms, added in another order.
TOLERANCE = dict(rtol=1e-11, atol=1e-11)


class Two:
    """Two chains in series."""

    def __init__(self, front: ChainProblem, mode="training", back: ChainProblem = BACK, back_mode="training") -> None:
        self.front, self.back = draw(front, mode), draw(back, back_mode)
        self.inputs = [t.clone().requires_grad_() for t in (*self.front.inputs, *self.back.inputs[1:])]
        assert self.gap() > 1e-6  # far more than rounding moves any

    def gap(self):
        """Between any ReLU's argument and zero."""
        arguments, count = [], len(self.front.inputs)
        middle = self.front.eager(*self.inputs[:count], arguments=arguments)
        self.back.eager(middle, *self.inputs[count:], arguments=arguments)
        return min(a.abs().min() for a in arguments)

    def chain(self, drawn, *inputs, backend="cpu"):
        spec = drawn.chain(backend)
        return residual_chain(spec, inputs[0], tuple(drawn.parameters(inputs)), drawn.given(inputs))[0]

    def middle(self, inputs, backend="cpu"):
        return self.chain(self.front, *inputs[: len(self.front.inputs)], backend=backend)

    def end(self, middle, inputs, backend="cpu"):
        return self.chain(self.back, middle, *inputs[len(self.front.inputs) :], backend=backend)

    def run(self, *inputs, backend="cpu"):
        return self.end(self.middle(inputs, backend), inputs, backend)

    def eager(self, *inputs):
        count = len(self.front.inputs)
        return self.back.eager(self.front.eager(*inputs[:count]), *inputs[count:])

    def gradients(self, out):
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
        with Calls() as calls:
            grads = torch.autograd.grad(out, self.inputs, weights)
        return grads, calls.masking_passes()


@pytest.mark.parametrize("back", ("identity", "none"))
@pytest.mark.parametrize("front", FRONTS)
def test_gradients_of_two_chains_together(front, back):
    two = Two(FRONTS[front], back=BACK._replace(shortcut=back))
    expected, _ = two.gradients(two.eager(*two.inputs))
    alone, passes_alone = two.gradients(two.run(*two.inputs))
    with handover.together():
        out = two.run(*two.inputs)
    result, passes = two.gradients(out)
    masks_itself = back == "identity"  # a last unit without a shortcut is masked by its own convolution's output
    assert passes_alone == 1 + masks_itself and passes == masks_itself
    torch.testing.assert_close(alone, expected, **TOLERANCE)
    torch.testing.assert_close(result, expected, **TOLERANCE)


@pytest.mark.parametrize("back_mode", ("frozen", "mixed", "mixed_frozen_first"))
def test_a_back_with_frozen_batch_norms(back_mode):
    two = Two(FRONTS["projection"], back_mode=back_mode)
    expected, _ = two.gradients(two.eager(*two.inputs))
    with handover.together():
        out = two.run(*two.inputs)
    result, passes = two.gradients(out)
    assert passes == (back_mode != "frozen" and back_mode != "mixed_frozen_first")
    torch.testing.assert_close(result, expected, **TOLERANCE)


def test_a_part_of_the_gradients(monkeypatch):
    """The front's weights are not asked for: nobody takes what is handed over, and nobody keeps it."""
    places, put = [], handover.Handed.put

    def putting(self, grad, sums):
        places.append(self)
        put(self, grad, sums)

    monkeypatch.setattr(handover.Handed, "put", putting)
    two = Two(FRONTS["identity"])
    last = two.inputs[-1]
    with handover.together():
        out = two.run(*two.inputs)
    (part,) = torch.autograd.grad(out.sum(), last, retain_graph=True)
    assert all(place._put is None or place._put[0]() is None for place in places)
    whole = torch.autograd.grad(out.sum(), two.inputs)
    assert places and torch.equal(whole[-1], part)
    expected = torch.autograd.grad(two.eager(*two.inputs).sum(), two.inputs)
    torch.testing.assert_close(whole, expected, **TOLERANCE)


def test_backward_in_inference_mode():
    """Whose tensors have no versions: nothing is handed over."""
    two = Two(FRONTS["identity"])
    with handover.together():
        out = two.run(*two.inputs)
    with torch.inference_mode():
        result, passes = two.gradients(out)
    assert passes == 2
    torch.testing.assert_close(result, two.gradients(two.eager(*two.inputs))[0], **TOLERANCE)


def test_they_can_run_backward_twice():
    two = Two(FRONTS["projection"])
    with handover.together():
        out = two.run(*two.inputs)
    first = torch.autograd.grad(out.sum(), two.inputs, retain_graph=True)
    second = torch.autograd.grad(out.sum(), two.inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.slow
def test_derivatives_of_their_gradients():
    two = Two(SMALL_FRONT, back=SMALL_BACK)
    assert two.gap() > MARGIN

    def run(*inputs):
        with handover.together():
            return two.run(*inputs)

    assert torch.autograd.gradcheck(run, two.inputs)
    assert torch.autograd.gradgradcheck(run, two.inputs)


def test_another_gradient_is_added():
    """What the front receives is a sum then, which it masks and sums itself."""
    two = Two(FRONTS["identity"])
    with handover.together():
        middle = two.middle(two.inputs)
        out = two.end(middle, two.inputs)
    result, passes = two.gradients(out + middle.square())
    middle = two.front.eager(*two.inputs[: len(two.front.inputs)])
    expected, _ = two.gradients(two.eager(*two.inputs) + middle.square())
    assert passes == 2
    torch.testing.assert_close(result, expected, **TOLERANCE)


def _interrupted(two):
    middle = two.middle(two.inputs)
    handover.interrupt()
    return two.end(middle, two.inputs)


def _not_together(two):
    middle = two.middle(two.inputs)
    with handover.together(False):
        return two.end(middle, two.inputs)


def _another_tensor(two):
    return two.end(two.middle(two.inputs).clone(), two.inputs)


def _watched(two):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        return two.run(*two.inputs)


@pytest.mark.parametrize("call", (_interrupted, _not_together, _another_tensor, _watched))
def test_where_they_do_not(call):
    two = Two(FRONTS["identity"])
    expected, _ = two.gradients(two.eager(*two.inputs))
    with handover.together():
        out = call(two)
    result, passes = two.gradients(out)
    assert passes == 2
    torch.testing.assert_close(result, expected, **TOLERANCE)


@pytest.mark.parametrize("mode", ("frozen", "mixed"))
def test_a_front_whose_last_batch_norm_is_frozen(mode):
    two = Two(FRONTS["identity"], mode)
    expected, _ = two.gradients(two.eager(*two.inputs))
    with handover.together():
        out = two.run(*two.inputs)
    torch.testing.assert_close(two.gradients(out)[0], expected, **TOLERANCE)


def test_a_shortcut_made_of_the_input():
    """Then the input has two readers, and its gradient is a sum."""
    two = Two(FRONTS["identity"])
    spec = two.back.chain("cpu")
    spec = dataclasses.replace(spec, identity=False, given=True)
    with handover.together():
        middle = two.middle(two.inputs)
        inputs = (middle, *two.inputs[len(two.front.inputs) :])
        out = residual_chain(spec, middle, tuple(two.back.parameters(inputs)), middle * 1)[0]
    result, passes = two.gradients(out)
    assert passes == 2
    torch.testing.assert_close(result, two.gradients(two.eager(*two.inputs))[0], **TOLERANCE)


def test_a_changed_or_another_gradient_is_not_the_one_handed_over():
    handed, grad, sums = handover.Handed(), torch.zeros(3), torch.ones(2)
    assert handed.take(grad) is None
    handed.put(grad, sums)
    assert handed.take(grad) is sums and handed.take(grad) is None
    handed.put(grad, sums)
    assert handed.take(grad.view(3)) is None and handed.take(grad) is None
    handed.put(grad, sums)
    grad.add_(1)
    assert handed.take(grad) is None


def test_under_functorch_and_forward_mode(monkeypatch):
    """A gradient of a function, one for each of a batch of inputs, and a tangent: nothing is left for the next chain."""
    left = []
    monkeypatch.setattr(handover, "leave", left.append)
    two = Two(SMALL_FRONT, back=SMALL_BACK)
    inputs = tuple(t.detach() for t in two.inputs)

    def loss(*inputs):
        with handover.together():
            return two.run(*inputs).square().sum()

    expected = torch.autograd.grad(two.eager(*two.inputs).square().sum(), two.inputs[0])[0]
    torch.testing.assert_close(torch.func.grad(loss)(*inputs), expected, **TOLERANCE)
    many = torch.func.vmap(torch.func.grad(loss), (0, *[None] * (len(inputs) - 1)))(
        torch.stack((inputs[0], inputs[0])), *inputs[1:]
    )
    torch.testing.assert_close(many, torch.stack((expected, expected)), **TOLERANCE)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(two.inputs[0], torch.ones_like(two.inputs[0]))
        tangent = forward_ad.unpack_dual(loss(dual, *two.inputs[1:])).tangent
    torch.testing.assert_close(tangent, expected.sum(), **TOLERANCE)
    assert not left
