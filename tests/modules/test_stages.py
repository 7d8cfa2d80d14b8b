"""Networks run their blocks together: fewer passes backward, the same gradients, and nothing for those who watch."""

import copy
import gc
import re
import weakref

import pytest
import torch
import torchvision
from operator_calls import Calls
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint_sequential

import resnet_fused
from resnet_fused import dispatch, models, modules
from resnet_fused.modules import fused as fused_module, stages
from resnet_fused.modules.stages import run_stages

# Float64 against eager's float64, of each tensor's largest value: some ten thousand roundings, through ten batch norms.
TOLERANCE = 1e-11


def _assert_close(result, expected):
    for a, b in zip(result, expected, strict=True):
        assert (a - b).abs().max() <= TOLERANCE * b.abs().max()


def _pair(block="basic"):
    torch.manual_seed(0)
    kind = {"basic": torchvision.models.resnet.BasicBlock, "bottleneck": torchvision.models.resnet.Bottleneck}[block]
    eager = torchvision.models.ResNet(kind, [2, 1, 2, 1], num_classes=5).double()
    return eager, resnet_fused.fuse(copy.deepcopy(eager))


def _images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _gradients(model, x=None):
    """→ those of the input and the parameters, and how many blocks had to mask what they received."""
    x = (_images() if x is None else x).requires_grad_()
    y = model(x).square().sum()
    with Calls() as calls:
        y.backward()
    return [x.grad, *(p.grad for p in model.parameters())], calls.masking_passes()


@pytest.mark.parametrize("block", ("basic", "bottleneck"))
def test_all_blocks_but_the_last_receive_masked_gradients(block):
    eager, fused = _pair(block)
    expected, (result, passes) = _gradients(eager)[0], _gradients(fused)
    assert passes == 1
    _assert_close(result, expected)


def test_networks_of_the_registry():
    torch.manual_seed(0)
    for name in ("resnet20", "resnet18"):
        model = models.create(name, num_classes=5).double()
        eager = copy.deepcopy(model)
        with resnet_fused.backend("eager"):
            expected, _ = _gradients(eager)
        result, passes = _gradients(model)
        # resnet20's shortcuts of padding, of the 2 blocks that change the shape, read their input beside the chain
        assert passes == {"resnet20": 3, "resnet18": 1}[name]
        _assert_close(result, expected)


def _hook_a_block(model, seen):
    model.layer1[0].register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))


def _hook_a_stage(model, seen):
    model.layer1.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))


def _keep_an_output(model, seen):
    def keep(module, inputs, output):
        output.register_hook(seen.append)

    model.layer3[0].register_forward_hook(keep)


def _keep_an_input(model, seen):
    model.layer3[1].register_forward_pre_hook(lambda module, inputs: inputs[0].register_hook(seen.append) and None)


@pytest.mark.parametrize("watch", (_hook_a_block, _hook_a_stage, _keep_an_output, _keep_an_input))
def test_who_watches_sees_the_gradient_that_eager_shows(watch):
    seen = []
    for model in _pair():
        watch(model, seen)
        _gradients(model)
    assert (seen[0] != 0).double().mean() > 0.9  # a masked one would be half zeros
    _assert_close(seen[1:], seen[:1])


class _Keeping(modules.BasicBlock):
    def forward(self, x):
        x.register_hook(self.seen.append)
        return super().forward(x)


class _Pyramid(nn.Module):
    """A stage of another kind, whose blocks' outputs have other readers."""

    def __init__(self, stage):
        super().__init__()
        self.blocks = stage

    def forward(self, x):
        first = self.blocks[0](x)
        first.register_hook(self.seen.append)
        return self.blocks[1](first) + first


@pytest.mark.parametrize("change", ("subclass", "stage"))
def test_modules_that_may_keep_what_they_see(change):
    seen = []
    for model in _pair():
        if change == "subclass":
            block = model.layer1[1]
            block.seen = seen
            if isinstance(block, modules.BasicBlock):
                block.__class__ = _Keeping
            else:
                block.register_forward_pre_hook(lambda module, inputs: inputs[0].register_hook(seen.append) and None)
        else:
            model.layer1 = _Pyramid(model.layer1)
            model.layer1.seen = seen
        _gradients(model)
    _assert_close(seen[1:], seen[:1])


def _shortcut_watched(seen):
    """A block whose shortcut and residual function read the input apart, and a hook on what the shortcut reads."""
    torch.manual_seed(0)
    options = modules.BlockOptions(reduction=4)
    stage = nn.Sequential(modules.OriginalBlock(8, 8), modules.OriginalBlock(8, 16, 2, options=options)).double()
    stage[1].shortcut.register_forward_pre_hook(lambda module, inputs: inputs[0].register_hook(seen.append) and None)
    return stage


def _child_watched(seen):
    """A block that runs eager, for its downsample is of two units, with a hook on the first of them."""
    torch.manual_seed(0)
    downsample = nn.Sequential(modules.OriginalBlock(8, 8), modules.OriginalBlock(8, 8))
    stage = nn.Sequential(modules.OriginalBlock(8, 8), modules.BasicBlock(8, 8, downsample=downsample)).double()
    downsample[0].register_forward_hook(lambda module, inputs, output: output.register_hook(seen.append) and None)
    return stage


@pytest.mark.parametrize("build", (_shortcut_watched, _child_watched))
def test_who_watches_a_child_sees_the_gradient_that_eager_shows(build):
    seen = []
    x = torch.randn(2, 8, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    stage = build(seen)
    weights = torch.linspace(-1, 1, stage(x).numel(), dtype=torch.float64)
    with resnet_fused.backend("eager"):
        (stage(x).flatten() * weights).sum().backward()
    (run_stages(x, [stage], stage).flatten() * weights).sum().backward()
    expected, result = seen
    assert (expected != 0).double().mean() > 0.9
    _assert_close([result], [expected])


def test_stages_are_called_where_that_shows():
    """By hooks on all modules, and where a stage itself is compiled."""
    _, fused = _pair()
    called, compiled = [], []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: called.append(module))
    try:
        fused(_images())
    finally:
        handle.remove()
    assert fused.layer1 in called and fused.layer4 in called

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    fused.layer2.compile(backend=backend)
    fused(_images())
    assert compiled


def test_checkpointed_stages():
    eager, fused = _pair()
    expected, _ = _gradients(eager)

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stage = fused.layer1

        def forward(self, x):
            return checkpoint_sequential(self.stage, 2, x, use_reentrant=False)

    fused.layer1 = Checkpointed()
    result, passes = _gradients(fused)
    assert passes == 3  # the stage's two and the last
    _assert_close(result, expected)


def test_float32_without_and_with_autocast():
    """Two orders of the same sums: each is as far from float64 as a few of its own roundings."""
    for dtype, tolerance in ((None, 1e-4), (torch.bfloat16, 0.02)):
        _, fused = _pair()
        fused.float()
        x = _images().float()
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            together, passes = _gradients(fused, x)
            fused.zero_grad()
            blocks = [module for module in fused.modules() if type(module) is modules.BasicBlock]
            for block in blocks:
                block.register_forward_hook(lambda *_: None)
            alone, passes_alone = _gradients(fused, x.detach())
        assert (passes, passes_alone) == (1, 6)
        for a, b in zip(together, alone):
            assert (a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-6)


def _ready(model, x):
    """How many of the network's blocks were prepared before the first of them ran, and what came out."""
    counts, prepare = [], stages._prepared_ahead

    def counting(*arguments):
        runs = prepare(*arguments)
        counts.append(sum(len(run.modules) for run in runs))
        return runs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_prepared_ahead", counting)
        with fused_module.record() as records:
            out = model(x)
    (count,) = counts
    assert [type(record.module) for record in records[1:]] == [type(block) for block in _blocks(model)]
    return count, out


def _blocks(model):
    return [block for stage in (model.layer1, model.layer2, model.layer3, model.layer4) for block in stage]


@pytest.mark.parametrize("image", (torch.contiguous_format, torch.channels_last), ids=("nchw", "nhwc"))
@pytest.mark.parametrize("weights", ("nchw", "nhwc", "some", "projections"))
@pytest.mark.parametrize("block", ("basic", "bottleneck"))
@pytest.mark.parametrize("size", (64, 32))  # the last blocks of the smaller have one pixel
def test_prepared_ahead(size, block, weights, image, monkeypatch):
    """In inference, all blocks before the first runs: the same bits, and no block is run on what it was not chosen for."""
    eager, fused = _pair(block)
    for model in (eager.eval(), fused.eval()):
        if weights == "nhwc":
            model.to(memory_format=torch.channels_last)
        elif weights == "some":
            model.layer2[0].conv2.to(memory_format=torch.channels_last)
        elif weights == "projections":
            model.layer2[0].downsample.to(memory_format=torch.channels_last)
    x = _images()[:, :, :size, :size].contiguous(memory_format=image)
    choose, problems = dispatch.choose_for, []

    def choosing(operand, problem, *rest):
        problems.append(problem())
        return choose(operand, problem, *rest)

    monkeypatch.setattr(dispatch, "choose_for", choosing)
    with torch.no_grad():
        count, out = _ready(fused, x)
        ahead, problems[:] = set(problems), []
        monkeypatch.setattr(stages, "_prepared_ahead", lambda *_: [])
        assert count == 6 and fused(x).equal(out)
        assert ahead >= set(problems) and (size == 32 or len(ahead) == len(set(problems)))
        _assert_close([out], [eager(x)])


def _calls(fused, x):
    with torch.profiler.profile() as profile:
        fused(x)
    return sum("frozen_chains" in event.name for event in profile.events())


# Large inputs are left divided, for Ctrl-C; and what reads a single pixel, whose strides say little of its format.
@pytest.mark.parametrize("size, images, calls", ((64, 2, 1), (64, 3, 6), (16, 2, 3)))
def test_units_run_in_one_call(size, images, calls, monkeypatch):
    monkeypatch.setattr(stages, "_SMALL", 2 * 64 * 16 * 16)
    _, fused = _pair()
    fused.eval()
    x = torch.randn(images, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        assert [_calls(fused, x) for _ in range(3)] == [calls] * 3  # prepared, kept and used again


def test_units_behind_a_single_channel_run_apart():
    """It leaves its block in a format that was not foreseen, for which they have to choose anew."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4).double()
    blocks = [modules.Bottleneck(8, 1, downsample=nn.Sequential(nn.Conv2d(8, 4, 1, bias=False).double(), norm))]
    stage = nn.Sequential(*blocks, modules.BasicBlock(4, 4), modules.BasicBlock(4, 4)).double().eval()
    x = torch.randn(2, 8, 3, 9, dtype=torch.float64)
    with torch.no_grad():
        assert _calls(lambda x: run_stages(x, [stage], stage), x) == 3


def test_units_of_several_backends(monkeypatch):
    eager, fused = _pair()
    eager.eval(), fused.eval()
    backends = ["cpu", "cpu", "reference", "reference", "cpu", "reference", "cpu"]  # of the stem and the blocks
    choose, left = dispatch.choose_for, list(backends)
    monkeypatch.setattr(dispatch, "choose_for", lambda *call: choose(*call)._replace(backend=left.pop(0)))
    with torch.no_grad(), fused_module.record() as records:
        _assert_close([fused(_images())], [eager(_images())])
    assert [record.backend for record in records] == backends


def test_prepared_up_to_the_first_that_is_unusual():
    _, fused = _pair()
    fused.eval()
    with torch.no_grad():
        expected = fused(_images())
        fused.layer2[0].conv1.register_forward_hook(lambda *_: None)
        count, out = _ready(fused, _images())
        _assert_close([out], [expected])
        assert count == 2
        fused.layer1[1].bn2.train()
        count, _ = _ready(fused, _images())
        assert count == 1


def test_prepared_ahead_in_inference_alone(table):
    """Nor where a call may be measured, for which it needs its input, or runs in another precision."""
    _, fused = _pair()
    fused.eval()
    x = _images()
    assert _ready(fused, x)[0] == 0
    with torch.no_grad():
        assert _ready(fused, x)[0] == 6
        with resnet_fused.backend("eager"):
            assert _ready(fused, x)[0] == 0
        with torch.autocast("cpu", torch.bfloat16):
            assert _ready(fused.float(), x.float())[0] == 0
        with dispatch.measuring("always"):
            assert _ready(fused.double(), x)[0] == 0
        assert table


def test_graphs_have_nothing_of_what_is_prepared_ahead():
    _, fused = _pair()
    fused.eval()

    def call(x):
        return fused(x)

    with torch.no_grad():
        graph = make_fx(call, tracing_mode="symbolic", _allow_non_fake_inputs=True)(_images()).graph
        names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
        assert sum("frozen_chains" in name for name in names) == 6 and not any("empty" in name for name in names)
        with FakeTensorMode(allow_non_fake_inputs=True):
            huge = torch.empty(10**6, 3, 224, 224, dtype=torch.float64)
            assert fused(huge).shape == (10**6, 5)


def _hook_a_later_one(fused, seen):
    def hook(*_):
        fused.layer3.register_forward_hook(lambda *_: seen.append("hook"))

    fused.layer1[0].register_forward_hook(hook)


def _replace_a_later_one(fused, seen):
    class Seen(nn.Module):
        def forward(self, x):
            seen.append("another")
            return block(x)

    block = fused.layer3[0]
    fused.layer1[0].register_forward_hook(lambda *_: fused.layer3.__setitem__(0, Seen()))


def _call_otherwise(fused, seen):
    class Calling(type(fused.layer3[0])):
        def __call__(self, *arguments):
            seen.append("call")
            return super().__call__(*arguments)

    fused.layer3[0].__class__ = Calling


def _replace_the_call_itself(fused, seen):
    block = fused.layer3[0]
    run = block.fused_forward
    block.fused_forward = lambda x: seen.append("run") or run(x)


@pytest.mark.parametrize("change", (_hook_a_later_one, _replace_a_later_one, _call_otherwise, _replace_the_call_itself))
def test_blocks_that_are_called(change):
    """As one after another would be."""
    _, fused = _pair()
    fused.eval()
    with torch.no_grad():
        expected, seen = fused(_images()), []
        change(fused, seen)
        assert fused(_images()).shape == expected.shape
    assert len(seen) == 1


def test_errors_come_in_their_turn():
    _, fused = _pair()
    del fused.eval().layer2[0].bn1
    with torch.no_grad(), fused_module.record() as records, pytest.raises(AttributeError, match="bn1"):
        fused(_images())
    assert len(records) == 3  # the stem and the blocks of the first stage


def _new_call(fused, x):
    """How many units were prepared for a call, and its result."""
    prepared, ahead = [], fused_module.FusedModule.ahead
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_module.FusedModule, "ahead", lambda *call: prepared.append(call) or ahead(*call))
        out = fused(x)
    return len(prepared), out


def _keep(fused, x):
    """Two calls on the same modules, so that the units are kept, and the result of the next."""
    assert _new_call(fused, x)[0] == 6
    assert _new_call(fused, x)[0] == 12  # once more, when it was recorded what they are made of
    assert stages._plans[fused].runs
    return fused(x)


def test_units_are_kept_for_the_next_call():
    eager, fused = _pair()
    fused.eval(), eager.eval()
    x = _images()
    with torch.no_grad():
        first = _keep(fused, x)
        count, second = _new_call(fused, x)
        assert count == 0 and second.equal(first)
        for parameter in (*fused.parameters(), *eager.parameters()):
            parameter.mul_(0.9)  # values are not what is kept
        count, third = _new_call(fused, x)
        assert count == 0
        _assert_close([third], [eager(x)])
    assert _new_call(fused, x)[0] == 0  # in training units are not prepared ahead
    with torch.no_grad():
        assert _new_call(fused, x)[0] == 0
        others = x[:1], x.to(memory_format=torch.channels_last)
        assert [_new_call(fused, other)[0] for other in others] == [6, 6]  # other kinds of input
        assert [_new_call(fused, other)[0] for other in (*others, x)] == [0, 0, 0]
        for size in range(32, 32 + 4 * stages._MOST_KINDS, 4):  # which are not kept without end
            fused(x[:, :, :size])
        assert len(stages._plans[fused].runs) == stages._MOST_KINDS and _new_call(fused, x)[0] == 6
        assert _new_call(copy.deepcopy(fused), x)[0] == 6


def test_what_is_kept_keeps_nothing_alive():
    """Neither the network, even where something below its stages refers to it, nor weights that it has no longer."""
    _, fused = _pair()
    fused.eval()
    fused.layer1[0].register_state_dict_pre_hook(lambda *_, model=fused: None)
    with torch.no_grad():
        _keep(fused, _images())
        conv = fused.layer1[0].conv1
        weight = weakref.ref(conv.weight)
        conv.weight = nn.Parameter(conv.weight * 2)
        gc.collect()
        assert weight() is None
    network = weakref.ref(fused)
    del fused, conv
    gc.collect()
    assert network() is None


def test_other_weights_at_every_call():
    _, fused = _pair()
    fused.eval()
    x = _images()
    with torch.no_grad():
        expected = _keep(fused, x)
        for scale in (2.0, 3.0, 4.0, 1.0):
            state = {name: p * scale for name, p in fused.named_parameters()}
            other = copy.deepcopy(fused)
            for name, parameter in other.named_parameters():
                parameter.copy_(state[name])
            assert torch.func.functional_call(fused, state, (x,)).equal(other(x))
        assert _keep(fused, x).equal(expected)


def test_modules_that_change_while_they_are_prepared_are_not_kept(monkeypatch):
    _, fused = _pair()
    fused.eval()
    x, block = _images(), fused.layer1[0]
    prepare = stages._prepare

    def changing(*arguments):
        result = prepare(*arguments)
        block.bn1.weight = nn.Parameter(block.bn1.weight * 1.5)
        return result

    with torch.no_grad():
        monkeypatch.setattr(stages, "_prepare", changing)
        for _ in range(4):
            fused(x)
        monkeypatch.setattr(stages, "_prepare", prepare)
        expected = copy.deepcopy(fused)(x)
        assert all(fused(x).equal(expected) for _ in range(3))


def test_tensors_that_modules_are_lent_while_they_are_prepared_are_not_kept(monkeypatch):
    _, fused = _pair()
    fused.eval()
    x, norm = _images(), fused.layer1[0].bn1
    own, lent = norm.weight, nn.Parameter(norm.weight * 1.5)
    prepare = stages._prepare

    def lending(*arguments):
        norm.weight = lent
        result = prepare(*arguments)
        norm.weight = own
        return result

    with torch.no_grad():
        expected = copy.deepcopy(fused)(x)
        monkeypatch.setattr(stages, "_prepare", lending)
        for _ in range(3):
            fused(x)
        monkeypatch.setattr(stages, "_prepare", prepare)
        assert all(fused(x).equal(expected) for _ in range(3))


def _set(path, **values):
    def change(model):
        module = model.get_submodule(path)
        for name, value in values.items():
            setattr(module, name, value)

    return change


def _data(path, change):
    def changing(model):
        tensor = model.get_parameter(path)
        tensor.data = change(tensor.data)

    return changing


def _append(model):
    torch.manual_seed(1)
    model.layer4.append(type(model.layer1[0])(512, 512).double().eval())


def _swap(model):
    first, second = model.layer1
    model.layer1[0], model.layer1[1] = second, first


def _reinsert(model):
    first = model.layer1[0]
    del model.layer1._modules["0"]
    model.layer1.add_module("0", first)  # nn.Sequential runs its children by the order in which they came


class _Weight(nn.Parameter):
    """As a quantized or tracing parameter would be."""


def _fresh_norm():
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(64).double().eval()
    nn.init.normal_(norm.weight)
    return norm


CHANGES = {
    "eps": _set("layer2.0.bn1", eps=0.5),
    "training": _set("layer3.1.bn2", training=True),
    "dilation": _set("layer1.0.conv2", dilation=(2, 2), padding=(2, 2)),
    "statistics": _set("layer1.1.bn1", running_mean=torch.linspace(-1, 1, 64, dtype=torch.float64)),
    "weight": lambda model: _set(
        "layer1.1.conv1", weight=nn.Parameter(torch.ones(64, 64, 3, 3, dtype=torch.float64) / 64)
    )(model),
    "weight's shape": lambda model: (
        _data("layer4.0.conv1.weight", lambda w: w[:256])(model),
        _set("layer4.0", bn1=nn.BatchNorm2d(256).double().eval())(model),
        _data("layer4.0.conv2.weight", lambda w: w[:, :256])(model),
    ),
    "one weight's shape": _data("layer1.0.bn2.weight", lambda w: w[:32]),
    "one weight's dtype": _data("layer2.0.bn2.weight", lambda w: w.float()),
    "weight's class": lambda model: setattr(model.layer3[1].conv1.weight, "__class__", _Weight),
    "children's order": _reinsert,
    "weight's strides": _data("layer1.0.conv1.weight", lambda w: w.transpose(0, 1)),
    "module": lambda model: _set("layer1.0", bn2=_fresh_norm())(model),
    "relu": _set("layer1.1", relu=nn.ReLU6()),
    "order": _swap,
    "length": _append,
    "stage": lambda model: _set("", layer3=nn.Sequential(nn.Conv2d(128, 256, 1, 2).double()))(model),
    "bias": lambda model: _set("layer1.0.bn2", bias=nn.Parameter(torch.ones(64, dtype=torch.float64)))(model),
    "removed": lambda model: model.layer1.__delitem__(1),
    "hook": lambda model: model.layer2[0].conv1.register_forward_hook(lambda module, inputs, out: out * 2),
    "hook on a stage": lambda model: model.layer2.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,)),
    "forward": lambda model: _set("layer3.0.bn1", forward=lambda x: x * 3)(model),
    "class": lambda model: setattr(model.layer4[0], "__class__", torchvision.models.resnet.BasicBlock),
    "table": lambda model: _set("layer1.0.bn1", _parameters=dict(_fresh_norm()._parameters))(model),
}
SAME_RESULT = ("class", "weight's strides", "weight's class")


@pytest.mark.parametrize("change", CHANGES)
def test_kept_units_are_not_used_when_a_module_has_changed(change):
    """The call gives what a copy gives that was never called before."""
    _, fused = _pair()
    fused.eval()
    x = _images()
    with torch.no_grad():
        before = _keep(fused, x)
        assert _new_call(fused, x)[0] == 0
        CHANGES[change](fused)
        copied = copy.deepcopy(fused)
        try:
            expected = copied(x)
        except RuntimeError as error:
            with pytest.raises(RuntimeError, match=re.escape(str(error))):
                fused(x)
            return
        count, out = _new_call(fused, x)
        assert count > 0 and out.equal(expected)
        if change not in SAME_RESULT:
            assert not torch.equal(out, before)


def test_kept_units_are_not_used_after_a_class_was_patched(monkeypatch):
    _, fused = _pair()
    fused.eval()
    x = _images()
    with torch.no_grad():
        before = _keep(fused, x)
        monkeypatch.setattr(modules.BasicBlock, "final_relu", lambda self: False)
        assert not fused(x).equal(before)


def test_kept_units_run_on_the_backend_asked_for():
    _, fused = _pair()
    fused.eval()
    x = _images()
    with torch.no_grad():
        _keep(fused, x)
        with resnet_fused.backend("reference"), fused_module.record() as records:
            fused(x)
            fused(x)
        assert {record.backend for record in records} == {"reference"}
        with fused_module.record() as records:
            fused(x)
        assert {record.backend for record in records} == {"cpu"}


def test_a_subclass_is_asked_for_its_members_at_every_call():
    class Alternating(modules.BasicBlock):
        calls = 0

        def members(self):
            type(self).calls += 1
            return super().members()

    _, fused = _pair()
    fused.layer1[0].__class__ = Alternating
    fused.eval()
    with torch.no_grad():
        calls = []
        for _ in range(4):
            fused(_images())
            calls.append(Alternating.calls)
    assert len(set(calls)) == 4


def _settings_that_mutate(model):
    model.layer1[0].conv1.stride = [1, 1]


def _sparse_buffer(model):
    model.layer1[0].register_buffer("adjacency", torch.eye(3).to_sparse_csr())


@pytest.mark.parametrize("change", (_settings_that_mutate, _sparse_buffer))
def test_not_kept_where_changes_would_not_be_seen(change):
    _, fused = _pair()
    fused.eval()
    x = _images()
    with torch.no_grad():
        expected = fused(x)
        change(fused)
        assert [fused(x).equal(expected) for _ in range(3)] == [True] * 3
        assert stages._plans[fused] is None
