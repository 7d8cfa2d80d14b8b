"""Children that are hooked, parametrized or replaced act as in eager; the module copies, pickles and traces."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.utils.parametrizations as parametrizations
import torch.nn.utils.prune as prune
import torchvision.models.resnet as tv
from eager_pairs import BLOCKS, KINDS, assert_same, batch_norms, buffers, compare, image, outcome, pair, step
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import resnet_fused
from resnet_fused.modules import record

CHILDREN = ("conv1", "bn1", "relu", "conv2", "bn2", "downsample.0", "downsample.1", "downsample")


@pytest.mark.parametrize("child", CHILDREN)
def test_a_forward_hook_acts(child):
    modules = pair("basic_projection")
    for module in modules:
        module.get_submodule(child).register_forward_hook(lambda module, inputs, output: output * 1.5)
    compare(lambda module: step(module, image()), modules, runs=None)


@pytest.mark.parametrize("child", CHILDREN)
def test_a_forward_pre_hook_acts(child):
    modules = pair("basic_projection")
    for module in modules:
        module.get_submodule(child).register_forward_pre_hook(lambda module, inputs: (inputs[0] + 0.5,))
    compare(lambda module: step(module, image()), modules, runs=None)


@pytest.mark.parametrize("child", ("conv1", "bn1", "conv2", "bn2", "downsample.0", "downsample.1", "downsample"))
@pytest.mark.parametrize("register", ("register_full_backward_hook", "register_full_backward_pre_hook"))
def test_a_backward_hook_acts(child, register):
    def hook(module, *gradients):
        return tuple(None if g is None else g * 2 for g in gradients[0])

    modules = [module.eval() for module in pair("basic_projection")]
    for module in modules:
        for m in module.modules():
            if isinstance(m, nn.ReLU):
                m.inplace = False  # eager forbids in-place work on a hooked module's output
        getattr(module.get_submodule(child), register)(hook)
    # `out += …` on the hooked bn2 is an error in eager; whichever it is, both say it
    expected = outcome(lambda module: step(module, image()), modules[0])
    raises = expected[0] if isinstance(expected, tuple) else None
    compare(lambda module: step(module, image()), modules, runs=None, raises=raises)


def test_a_removed_hook_lets_the_block_fuse_again():
    _, fused = pair("basic")
    handle = fused.conv1.register_forward_hook(lambda *_: None)
    for expected in (None, "cpu"):
        with record() as records:
            fused(image())
        assert records[0].backend == expected and (expected or "hooks" in records[0].reason)
        handle.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_of_the_block_itself_act_and_leave_it_fused(kind):
    seen = []

    def action(module):
        seen.clear()
        module.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
        module.register_forward_hook(lambda module, inputs, output: output + 1)
        module.register_full_backward_hook(lambda module, dx, dy: seen.append(dy[0].clone()))
        result = step(module, image(kind))
        return result, list(seen)

    compare(action, pair(kind))
    assert len(seen) == 1


def test_global_hooks_act():
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    try:
        eager, fused = pair("basic")
        eager(image())
        expected, calls[:] = list(calls), []
        fused(image())
        assert calls == expected and calls.count("ReLU") == 2
    finally:
        handle.remove()


@pytest.mark.parametrize("child", ("conv1", "conv2"))
def test_parametrizations_act(child):
    modules = pair("basic")
    for module in modules:
        parametrizations.weight_norm(module.get_submodule(child))
    compare(lambda module: step(module, image()), modules, runs=None)


def test_a_parametrized_batch_norm_acts():
    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    modules = pair("basic")
    for module in modules:
        nn.utils.parametrize.register_parametrization(module.bn1, "weight", Double())
    compare(lambda module: step(module, image()), modules, runs=None)


def test_pruning_acts():
    modules = pair("basic")
    for module in modules:
        prune.ln_structured(module.conv1, "weight", amount=0.5, n=2, dim=0)
    compare(lambda module: step(module, image()), modules, runs=None)


class ScaledConv(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)



REPLACEMENTS = {
    "GroupNorm": ("bn1", lambda: nn.GroupNorm(2, 8)),
    "Identity": ("bn2", nn.Identity),
    "InstanceNorm": ("bn2", lambda: nn.InstanceNorm2d(8, affine=True)),
    "GELU": ("relu", nn.GELU),
    "LeakyReLU": ("relu", nn.LeakyReLU),
    "ReLU6": ("relu", nn.ReLU6),
    "conv subclass": ("conv1", lambda: ScaledConv(8, 8, 3, padding=1, bias=False)),
    "Sequential": ("conv2", lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Dropout(0.0))),
    "conv with a bias": ("conv1", lambda: nn.Conv2d(8, 8, 3, padding=1)),
    "reflected padding": ("conv1", lambda: nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", bias=False)),
    "padding by name": ("conv1", lambda: nn.Conv2d(8, 8, 3, padding="same", bias=False)),
    "custom shortcut": ("downsample", lambda: nn.AvgPool2d(1)),
    "longer shortcut": ("downsample", lambda: nn.Sequential(nn.AvgPool2d(1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))),
    "shortcut of another order": ("downsample", lambda: nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))),
}


@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_a_replaced_child_acts(replacement):
    name, build = REPLACEMENTS[replacement]
    child = build().double()
    modules = pair("basic")
    for module in modules:
        setattr(module, name, copy.deepcopy(child))
    compare(lambda module: step(module, image()), modules, runs=None)


FUSABLE = {
    "SyncBatchNorm": ("bn1", lambda: nn.SyncBatchNorm(8)),
    "SyncBatchNorm in eval": ("bn1", lambda: nn.SyncBatchNorm(8).eval()),
    "dilated": ("conv1", lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2, bias=False)),
    "grouped": ("conv1", lambda: nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)),
    "depthwise": ("conv2", lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)),
    "5x5": ("conv1", lambda: nn.Conv2d(8, 8, 5, padding=2, bias=False)),
    "1x3": ("conv1", lambda: nn.Conv2d(8, 8, (1, 3), padding=(0, 1), bias=False)),
    "another eps": ("bn1", lambda: nn.BatchNorm2d(8, eps=0.1, momentum=0.5)),
    "plain ReLU": ("relu", lambda: nn.ReLU(inplace=False)),
    "projection of stride 1": ("downsample", lambda: nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))),
}


@pytest.mark.parametrize("replacement", FUSABLE)
def test_a_child_replaced_by_its_like_is_fused(replacement):
    name, build = FUSABLE[replacement]
    child = build().double()
    modules = pair("basic")
    for module in modules:
        setattr(module, name, copy.deepcopy(child))
    compare(lambda module: step(module, image()), modules)


def test_an_added_activation_of_the_instance_acts():
    modules = pair("basic")
    for module in modules:
        module.conv1.forward = lambda x, conv=module.conv1: nn.Conv2d.forward(conv, x).sin()
    compare(lambda module: step(module, image()), modules, runs=None)


class Tagged(torch.Tensor):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_subclass_is_preserved(kind):
    def action(module):
        y = module(image(kind).as_subclass(Tagged))
        assert type(y) is Tagged
        return y.as_subclass(torch.Tensor).detach()

    compare(action, pair(kind), runs=None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clone", (copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))))
def test_copies(kind, clone):
    _, fused = pair(kind)
    step(fused, image(kind))
    again = clone(fused)
    assert type(again) is type(fused) and again.training
    assert not {p.data_ptr() for p in again.parameters()} & {p.data_ptr() for p in fused.parameters()}
    compare(lambda module: step(module, image(kind)), (fused, again), tolerance=0)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_whole(kind):
    _, fused = pair(kind)
    file = io.BytesIO()
    torch.save(fused, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    compare(lambda module: step(module, image(kind)), (fused, again), tolerance=0)


@pytest.mark.parametrize("kind", BLOCKS)
def test_state_dict_versions(kind):
    eager, fused = pair(kind)
    state = fused.state_dict()
    assert list(state) == list(eager.state_dict())
    assert state._metadata["bn1"] == eager.state_dict()._metadata["bn1"] == {"version": 2}
    missing = [key for key in state if key.endswith("num_batches_tracked")]
    for key in missing:
        del state[key]
    error = outcome(lambda module: module.load_state_dict(state, strict=True), eager)
    assert "num_batches_tracked" in error[1]
    ours = outcome(lambda module: module.load_state_dict(state, strict=True), fused)
    assert ours == error
    plain = {**state}  # no metadata: a checkpoint from before version 2
    assert str(fused.load_state_dict(plain, strict=True)) == str(eager.load_state_dict(plain, strict=True))


@pytest.mark.parametrize("kind", BLOCKS)
def test_symbolic_trace(kind):
    eager, fused = pair(kind)
    ours, theirs = torch.fx.symbolic_trace(fused), torch.fx.symbolic_trace(eager)
    assert [(n.op, str(n.target)) for n in ours.graph.nodes] == [(n.op, str(n.target)) for n in theirs.graph.nodes]
    assert_same(step(ours, image(kind)), step(theirs, image(kind)))


def test_feature_extractor():
    eager, _ = pair("stem")
    eager = tv.resnet18(num_classes=3).double()
    fused = resnet_fused.fuse(copy.deepcopy(eager))
    layers = {"relu": "stem", "layer1.0.bn1": "inner", "layer2": "two", "layer4.1.relu_1": "last", "avgpool": "pooled"}
    x = image("stem", size=32)
    ours, theirs = (create_feature_extractor(model, dict(layers)) for model in (fused, eager))
    assert_same({k: v.detach() for k, v in ours(x).items()}, {k: v.detach() for k, v in theirs(x).items()})
    assert_same(buffers(fused), buffers(eager))


def test_intermediate_layer_getter():
    from torchvision.models._utils import IntermediateLayerGetter

    eager = tv.resnet18(num_classes=3).double()
    fused = resnet_fused.fuse(copy.deepcopy(eager))
    x = image("stem", size=32)
    getters = [IntermediateLayerGetter(m, {"layer1": "a", "layer4": "b"}) for m in (eager, fused)]
    with record() as records:
        ours = getters[1](x)
    assert_same({k: v.detach() for k, v in ours.items()}, {k: v.detach() for k, v in getters[0](x).items()})
    assert len(records) == 8 and {r.backend for r in records} == {"cpu"}


def test_meta_tensors():
    for module in pair("basic"):
        y = module.to("meta")(image().to("meta"))
        assert y.shape == (3, 8, 6, 6) and y.device.type == "meta"


def test_batch_norm_count_of_the_projection():
    """Every batch norm of the block advances, the projection's too."""
    _, fused = pair("bottleneck_projection")
    fused(image("bottleneck_projection"))
    assert [int(bn.num_batches_tracked) for bn in batch_norms(fused)] == [1] * 4
