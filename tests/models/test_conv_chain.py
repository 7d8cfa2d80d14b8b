"""ConvChain and ConvFeatures against the same children in a plain nn.Sequential."""

import copy
import pickle

import pytest
import torch
from eager_pairs import assert_same, batch_norms, buffers, outcome, randomize
from torch import nn
from torch.utils.checkpoint import checkpoint

import resnet_fused
from resnet_fused import dispatch
from resnet_fused.models import ConvChain, ConvFeatures
from resnet_fused.modules import FusedModule, record


def children(bias=True, widths=(3, 5, 4)):
    torch.manual_seed(0)
    layers = []
    for inplanes, planes in zip(widths, widths[1:]):
        layers += [nn.Conv2d(inplanes, planes, 3, padding=1, bias=bias), nn.BatchNorm2d(planes), nn.ReLU(inplace=True)]
    return layers


def pair(kind=ConvChain, bias=True, dtype=torch.float64):
    """→ (nn.Sequential, ours) with equal weights; ConvFeatures: a pool between two series, and one behind them."""
    layers = children(bias)
    if kind is ConvFeatures:
        layers = [*layers, nn.MaxPool2d(2), *children(bias, (4, 6)), nn.AvgPool2d(2)]
    ours = randomize(kind(*layers)).to(dtype)
    with torch.no_grad():
        for conv in ours:
            if isinstance(conv, nn.Conv2d) and bias:
                conv.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(4))
    return nn.Sequential(*copy.deepcopy(list(ours))), ours


def image(dtype=torch.float64, batch=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)


def step(module, x):
    x = x.detach().requires_grad_()
    y = module(x)
    grad_out = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(y.dtype)
    y.backward(grad_out)
    return {"y": y.detach(), "dx": x.grad, "dp": [p.grad for p in module.parameters()], "buffers": buffers(module)}


def ran(action, backends):
    with record() as records:
        result = action()
    assert [r.backend for r in records] == backends, [r[1:] for r in records]
    return result


@pytest.mark.parametrize("settings", ("train", "eval", "frozen", "cumulative", "untracked", "plain norms"))
@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("kind", (ConvChain, ConvFeatures))
def test_step(kind, bias, settings):
    modules = pair(kind, bias)
    for module in modules:
        module.train(settings != "eval")
        for bn in batch_norms(module):
            bn.train(settings not in ("eval", "frozen"))
            if settings == "cumulative":
                bn.momentum = None
            if settings == "untracked":
                bn.track_running_stats, bn.running_mean, bn.running_var = False, None, None
            if settings == "plain norms":
                bn.weight = bn.bias = None
    eager, ours = modules
    theirs = [step(eager, image()) for _ in range(2)]  # twice: the running statistics then differ from the batch's
    eager_ran = ran(lambda: [step(ours, image()) for _ in range(2)], ["cpu"] * (2 if kind is ConvChain else 4))
    assert_same(eager_ran, theirs)  # float64: eager_pairs.TOLERANCE


def test_a_bias_before_batch_statistics_has_gradient_zero():
    _, ours = pair()
    step(ours, image())
    assert all(torch.equal(conv.bias.grad, torch.zeros_like(conv.bias)) for conv in (ours[0], ours[3]))


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_lower_precision(dtype, training):
    """Oracle: the error against float64 is at most twice eager's, of the largest values and running statistics."""
    eager, ours = (module.train(training) for module in pair(dtype=dtype))
    truth = copy.deepcopy(eager).double()
    x = image(dtype)
    expected, theirs, result = truth(x.double()), eager(x), ran(lambda: ours(x), ["cpu"])
    assert result.dtype == dtype
    floor = torch.finfo(dtype).eps * expected.abs().max()  # one rounding of the result itself
    assert (result - expected).abs().max() <= 2 * (theirs - expected).abs().max() + floor
    for name, value in buffers(truth).items():
        error, allowed = ((buffers(m)[name] - value).abs().max() for m in (ours, eager))
        assert error <= 2 * allowed + torch.finfo(dtype).eps * value.abs().max(), name


def test_checkpoints_update_as_eager():
    """A non-reentrant checkpoint runs the forward twice, and both updates of the running mean hold the bias."""
    results = []
    for module in pair():
        x = image().requires_grad_()
        checkpoint(module, x, use_reentrant=False).sum().backward()
        results.append((buffers(module), x.grad))
    assert_same(results[1], results[0])
    assert results[1][0]["1.num_batches_tracked"] == 2


@pytest.mark.parametrize("child", range(3))
def test_hooks_act(child):
    modules = pair()
    for module in modules:
        module[child].register_forward_hook(lambda module, inputs, output: output * 1.5)
    assert_same(ran(lambda: step(modules[1], image()), [None]), step(modules[0], image()))


@pytest.mark.parametrize("kind, backends", ((ConvChain, [None]), (ConvFeatures, [None, "cpu"])))
def test_children_replaced_after_construction(kind, backends):
    """The first series runs eager with a padding that is not fused; a new convolution is used at once."""
    modules = pair(kind)
    for module in modules:
        torch.manual_seed(9)
        module[0] = nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect").double()
    assert_same(ran(lambda: step(modules[1], image()), backends), step(modules[0], image()))


@pytest.mark.parametrize("wrong", ("channels", "dimensions", "dtype", "bias", "one value"))
def test_errors_are_eagers(wrong):
    x = {"channels": image()[:, :2], "dimensions": image()[0, 0], "dtype": image(torch.float32),
         "one value": image()[:1, :, :1, :1]}.get(wrong, image())  # fmt: skip
    modules = pair()
    if wrong == "bias":
        for module in modules:
            module[3].bias = nn.Parameter(torch.zeros(9).double())
    expected, result = (outcome(lambda m: m(x), module) for module in modules)
    assert isinstance(expected[0], type) and result == expected
    assert all(bn.num_batches_tracked == 0 for bn in batch_norms(modules[1]))


def test_other_structures_run_eager():
    eager, ours = pair()
    for module in (eager, ours):
        module.append(nn.Dropout(0.0))
    assert_same(ran(lambda: step(ours, image()), [None]), step(eager, image()))


def test_features_are_a_sequential():
    """Same names and state; slices, copies and pickles run fused; each child is in the model once."""
    eager, ours = pair(ConvFeatures)
    assert list(ours.state_dict()) == list(eager.state_dict())
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in eager.named_modules()]
    assert [type(part) for part in ours.parts()] == [ConvChain, nn.MaxPool2d, ConvChain, nn.AvgPool2d]
    expected = eager(image())
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert_same(ran(lambda: copied(image()), ["cpu", "cpu"]), expected)
    assert type(ours[:7]) is ConvFeatures
    assert_same(ran(lambda: ours[:7](image()), ["cpu"]), eager[:7](image()))
    assert not any(isinstance(module, FusedModule) for module in ours.modules())


def test_explain_names_the_series():
    rows = resnet_fused.explain(pair(ConvFeatures)[1], image()).rows
    assert [(row.name, row.unit, row.backend) for row in rows] == [
        ("0 to 5", "ConvChain", "cpu"), ("7 to 9", "ConvChain", "cpu")]  # fmt: skip


def test_traced_by_fx():
    """torchvision's feature extraction is made of it; the graph holds the real children."""
    eager, ours = pair(ConvFeatures)
    graph = torch.fx.symbolic_trace(ours)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == [str(i) for i in range(len(ours))]
    assert_same(graph(image()), eager(image()))


def test_a_unit_that_is_measured_first(monkeypatch):
    """Trials run the unit within its own call, eager too; the running mean still gets the bias, and once."""
    nested = []

    def choose_for(operand, problem, trial):
        if nested:
            return dispatch.Choice(dispatch.EAGER, "a trial")
        nested.append(trial())
        nested[0]()
        return dispatch.Choice("cpu", "measured")

    eager, ours = pair()
    monkeypatch.setattr(dispatch, "choose_for", choose_for)
    assert_same(ran(lambda: step(ours, image()), ["cpu"]), step(eager, image()))


@pytest.mark.slow
def test_measuring_leaves_the_model_alone(table):
    """Trials of a unit run on copies of its parameters and buffers, though the unit is made for the call."""
    _, ours = pair(ConvFeatures)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    rows = resnet_fused.tune(ours, image()).rows
    assert len(rows) == 2 and all(row.reason.startswith("measured: ") for row in rows)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())
    assert all(parameter.grad is None for parameter in ours.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("kind, bias", ((ConvChain, False), (ConvChain, True), (ConvFeatures, True)))
def test_compiled(kind, bias):
    eager, ours = pair(kind, bias)
    torch._dynamo.reset()
    result = step(torch.compile(ours, backend="aot_eager", fullgraph=True), image())
    expected = step(eager, image())
    assert_same([result["y"], result["dx"], result["dp"]], [expected["y"], expected["dx"], expected["dp"]])
    assert_same(buffers(ours), expected["buffers"])
