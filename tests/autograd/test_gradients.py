"""First and second derivatives of the residual chain and the stem against numerical ones, in float64."""

import itertools

import cuda_emulated
import pytest
import torch
from chains import MODES, draw, draw_stem
from operator_cases import FORMATS
from problems import CHAINS, ChainProblem, ConvSize
from torch.autograd import gradcheck, gradgradcheck

BACKENDS = ("cpu", "reference")
PROBLEMS = {p.id: p for p in CHAINS}
# gradcheck's tolerances are PyTorch's defaults (eps 1e-6, atol 1e-5, rtol 1e-3), meant for float64.


def _drawn(name, mode):
    if name == "stem":
        return draw_stem(mode)
    # A single unit without a shortcut and with gamma = 0 is a constant: its other channels remain.
    return draw(PROBLEMS[name], mode)


EVERYDAY_FORWARD = {"single", "basic_projection", "bottleneck", "stem"}
EVERYDAY_SECOND = {"single", "basic", "bottleneck_projection", "stem"}
COMBINATIONS = [
    pytest.param(name, mode, backend, id=f"{name}-{mode}-{backend}")
    for name, mode, backend in itertools.product((*PROBLEMS, "stem"), MODES, BACKENDS)
    if not (mode.startswith("mixed") and (name.startswith("single") or name == "stem"))
]


@pytest.mark.slow
@cuda_emulated.needs_emulator
@pytest.mark.parametrize("mode", MODES[:2])
@pytest.mark.parametrize("name", ["basic", "bottleneck_projection", "stem"])
def test_gradcheck_of_the_cuda_kernels(name, mode):
    drawn = _drawn(name, mode)
    assert gradcheck(drawn.fused("cuda_emulated"), _leaves(drawn, torch.channels_last), check_batched_grad=False)


def _leaves(drawn, layout=torch.contiguous_format):
    return tuple(
        (t.contiguous(memory_format=layout) if t.dim() == 4 else t.clone()).requires_grad_() for t in drawn.inputs
    )


def _everyday(names, backends):
    """The combinations, all but these marked slow."""
    chosen = [c.values[0] in names and c.values[2] in backends for c in COMBINATIONS]
    slow = pytest.mark.slow
    return [c if chose else pytest.param(*c.values, id=c.id, marks=slow) for c, chose in zip(COMBINATIONS, chosen)]


@pytest.mark.parametrize("name, mode, backend", _everyday(EVERYDAY_FORWARD, ("cpu",)))
def test_gradcheck(name, mode, backend):
    drawn = _drawn(name, mode)
    leaves = _leaves(drawn, torch.channels_last)
    # Batched by vmap's predecessor, which knows too few of the reference's operations (aten::flatten).
    assert gradcheck(drawn.fused(backend), leaves, check_batched_grad=backend == "cpu")


@pytest.mark.parametrize("name, mode, backend", _everyday(EVERYDAY_FORWARD, ("cpu",)))
def test_forward_mode(name, mode, backend):
    drawn = _drawn(name, mode)
    assert gradcheck(
        drawn.fused(backend), _leaves(drawn), check_forward_ad=True, check_backward_ad=False,
        check_batched_forward_grad=backend == "cpu", check_undefined_grad=False, fast_mode=True,
    )  # fmt: skip


@pytest.mark.parametrize("name, mode, backend", _everyday(EVERYDAY_SECOND, ("cpu",)))
def test_gradgradcheck(name, mode, backend):
    drawn = _drawn(name, mode)
    # A projection onto one random direction (fast_mode); the slow test below takes every entry.
    assert gradgradcheck(drawn.fused(backend), _leaves(drawn), fast_mode=True)


# A Jacobian of second derivatives takes a step for each element: as few as have every tap, stride and shortcut.
SMALLER = {name: p._replace(N=2, H=3, W=3) for name, p in PROBLEMS.items()}
SMALLER["basic"] = SMALLER["basic"]._replace(C=2, units=tuple(u._replace(K=2) for u in PROBLEMS["basic"].units))
FEWER_PIXELS = (2, 2, 5, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name, mode", [
    ("single", "training"), ("basic_given", "training"), ("basic_projection", "mixed"), ("bottleneck", "frozen"),
    ("stem", "training"),
])  # fmt: skip
def test_gradgradcheck_every_entry(name, mode):
    """Of what differs in second derivatives, once: they are of PyTorch's own operations (autograd/eager.py)."""
    drawn = draw_stem(mode, size=FEWER_PIXELS) if name == "stem" else draw(SMALLER[name], mode)
    assert gradgradcheck(drawn.fused("cpu"), _leaves(drawn), check_fwd_over_rev=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in EVERYDAY_FORWARD else pytest.mark.slow) for name in PROBLEMS]
)
def test_without_the_last_relu(name, mode):
    drawn = draw(PROBLEMS[name], mode, last_relu=False)
    assert gradcheck(drawn.fused("cpu"), _leaves(drawn))


@pytest.mark.parametrize("mode", MODES[:2])
def test_second_derivatives_of_a_given_shortcut_without_the_last_relu(mode):
    """Its gradient is the output's itself."""
    name = next(name for name, problem in PROBLEMS.items() if problem.shortcut == "given")
    drawn = draw(PROBLEMS[name], mode, last_relu=False)
    assert gradgradcheck(drawn.fused("cpu"), _leaves(drawn), check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("layout", FORMATS)
def test_derivatives_where_the_mask_alone_is_kept(layout):
    """Of a given shortcut, whose values nothing else has; the reference keeps masks as the GPU's kernels do."""
    drawn = draw(ChainProblem("eights", 2, 8, 2, 4, (ConvSize(8, 1),), "given"), "training")
    fused, leaves = drawn.fused("reference"), _leaves(drawn, FORMATS[layout])
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out = fused(*leaves)
    assert not any(t.data_ptr() == out.data_ptr() for t in saved)
    assert gradcheck(fused, leaves, check_forward_ad=True, check_batched_grad=False, fast_mode=True)
    assert gradgradcheck(fused, leaves, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("mode", ["training", "frozen"])
@pytest.mark.parametrize("missing", [("gamma",), ("beta",), ("gamma", "beta")])
def test_without_gamma_or_beta(missing, mode):
    drawn = draw(PROBLEMS["basic_projection"], mode, zero_gamma=False)
    positions = {"gamma": 2, "beta": 3}
    inputs = list(drawn.inputs)
    for i in range(len(drawn.units)):
        for name in missing:
            inputs[3 * i + positions[name]] = None
    kept = [i for i, t in enumerate(inputs) if t is not None]

    def full(function):
        def run(*values):
            arguments = list(inputs)
            for i, value in zip(kept, values):
                arguments[i] = value
            return function(*arguments)

        return run

    leaves = [inputs[i].clone().requires_grad_() for i in kept]
    ours, theirs = full(drawn.fused("cpu"))(*leaves), full(drawn.eager)(*leaves)
    cotangent = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).view_as(ours)
    # 1e-9: float64 sums of some hundred terms keep 13 digits; the margin from kinks leaves masks equal.
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for a, b in zip(torch.autograd.grad(ours, leaves, cotangent), torch.autograd.grad(theirs, leaves, cotangent)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ["reference", cuda_emulated.BACKEND])
@pytest.mark.parametrize("layout, other", [("nhwc", "nchw"), ("nchw", "nhwc")])
def test_hooks_that_change_the_memory_format(layout, other, backend):
    """The mask is of the order that its tensors had: gradients are as without hooks, up to the order of their sums."""
    drawn = draw(ChainProblem("eights", 2, 8, 4, 4, (ConvSize(8, 3), ConvSize(8, 3)), "identity"), "training")
    fused, saved = drawn.fused(backend), []
    leaves = [t.clone().requires_grad_() for t in drawn.inputs]
    operands = [leaves[0].contiguous(memory_format=FORMATS[layout]), *leaves[1:]]
    dout = torch.randn(fused(*operands).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = torch.autograd.grad(fused(*operands), leaves, dout)

    def pack(t):
        saved.append(t)
        return t

    def reformat(t):
        return t.contiguous(memory_format=FORMATS[other]) if t.dim() == 4 else t

    with torch.autograd.graph.saved_tensors_hooks(pack, reformat):
        hooked = torch.autograd.grad(fused(*operands), leaves, dout)
    assert [t.dim() for t in saved if t.dtype == torch.uint8] == [4 if layout == "nhwc" else 3]
    for ours, theirs in zip(hooked, plain):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12 * theirs.abs().max().item())  # float64's rounding
