"""Winograd's algorithm: the switch, its error where it is largest, and gradients through it."""

import engine
import pytest
import torch
from operator_cases import make_case
from problems import WINOGRAD
from tolerance import assert_bit_equal, max_error

import resnet_fused
from resnet_fused import ops

WHOLE = WINOGRAD[0]


@pytest.mark.parametrize("problem", WINOGRAD, ids=lambda p: p.id)
def test_the_table_s_problems_run_it(problem):
    assert engine.algorithm(problem, torch.float32) == "winograd"
    with engine.winograd(False):
        assert engine.algorithm(problem, torch.float32) == "direct"


def test_the_switch():
    """Sums of small integers are exact without, and rounded with."""
    case = make_case("fprop", WHOLE, torch.float32, torch.channels_last, integer=True)
    truth = case.double().run(ops.get("reference"))[0]
    before = engine._cpu.winograd()
    try:
        resnet_fused.set_winograd(False)
        assert_bit_equal(case.run(ops.get("cpu"))[0].double(), truth)
        resnet_fused.set_winograd(True)
        # Sums of up to 1,300, by sums of a few thousand: some of their last bits.
        assert 0 < max_error(case.run(ops.get("cpu"))[0], truth) < 1e-3
    finally:
        resnet_fused.set_winograd(before)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(2, 64, 56), (4, 128, 28), (8, 256, 14), (16, 512, 7)])
def test_error_on_resnet_s_layers(size):
    """At most 8 times eager's, in the largest and in the mean square."""
    N, C, H = size
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, C, H, H, generator=generator).relu_().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(C, C, 3, 3, generator=generator) / (9 * C) ** 0.5
    grad = torch.randn(N, C, H, H, generator=generator).contiguous(memory_format=torch.channels_last)
    conv = ((1, 1), (1, 1), (1, 1), 1)
    fprop = (x, weight, *conv, None, False, False, None, None, None, False)
    backward = (grad, None, None, None, None, False, x, weight, *conv, None, False, False, None, None, [True, True])

    def run(namespace, convert=lambda t: t):
        y, _ = namespace.conv_fprop(*(convert(a) if isinstance(a, torch.Tensor) else a for a in fprop))
        dx, dw, _ = namespace.conv_backward(*(convert(a) if isinstance(a, torch.Tensor) else a for a in backward))
        return y, dx, dw

    truth = run(ops.get("reference"), torch.Tensor.double)
    for ours, theirs, exact in zip(run(ops.get("cpu")), run(ops.get("reference")), truth):
        assert max_error(ours, exact) <= 8 * max_error(theirs, exact)
        rms, eager_rms = ((t.double() - exact).square().mean().sqrt() for t in (ours, theirs))
        assert rms <= 8 * eager_rms


def test_gradcheck_through_it():
    """float64, in random directions: a numerical Jacobian of so many elements would take minutes."""
    torch.manual_seed(0)
    block = resnet_fused.BasicBlock(16, 16).double()
    x = torch.randn(1, 16, 16, 16, dtype=torch.float64, requires_grad=True)
    conv = WHOLE._replace(N=1, C=16, H=16, W=16, K=16)
    assert engine.algorithm(conv, torch.float64) == "winograd"
    arguments = []
    hook = block.relu.register_forward_pre_hook(lambda _, inputs: arguments.append(inputs[0].detach().clone()))
    with torch.no_grad(), resnet_fused.backend("eager"):
        block(x)
    hook.remove()
    # A difference of 2e-6 of some input must not move a ReLU's argument over its kink.
    assert len(arguments) == 2 and min(z.abs().min().item() for z in arguments) > 1e-5
    with resnet_fused.backend("cpu"):
        assert torch.autograd.gradcheck(block, (x,), eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)
        parameters = [p for p in block.parameters()]

        def run(*values):
            return torch.func.functional_call(block, dict(zip(dict(block.named_parameters()), values)), (x.detach(),))

        assert torch.autograd.gradcheck(run, parameters, eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)
