"""fuse and unfuse: in place, references kept, undone exactly."""

import copy
import io
import pickle
import warnings

import pytest
import torch
import torchvision
import torchvision.models.resnet as tv
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

import resnet_fused
from resnet_fused.modules import FusedModule, blocks, record

UNITS = {"resnet18": 9, "resnet34": 17, "resnet50": 17, "resnext50_32x4d": 17}  # blocks and the stem


def network(name="resnet18", dtype=torch.float64, **options):
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(num_classes=10, **options).to(dtype)


def images(dtype=torch.float64, size=32, batch=2):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


def small_network(block=tv.BasicBlock, **options):
    torch.manual_seed(0)
    return tv.ResNet(block, [1, 1, 1, 1], num_classes=10, **options).double()


def runs(model, x):
    with record() as records:
        out = model(x)
    return out, [r.backend for r in records]


def same(a, b):
    # float64, another order of sums: 1e-16 per operation through some twenty layers
    return torch.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", UNITS)
def test_every_unit_is_fused(name):
    eager = network(name).eval()
    fused = resnet_fused.fuse(copy.deepcopy(eager))
    assert sum(isinstance(m, FusedModule) for m in fused.modules()) == UNITS[name]
    out, backends = runs(fused, images())
    assert backends == ["cpu"] * UNITS[name]
    assert same(out, eager(images()))


@pytest.mark.parametrize("name", UNITS)
def test_modules_keep_their_identity(name):
    model = network(name, torch.float32)
    before = [(n, id(m)) for n, m in model.named_modules()]
    tensors = [(n, id(t)) for n, t in (*model.named_parameters(), *model.named_buffers())]
    keys, text = list(model.state_dict()), repr(model)
    assert resnet_fused.fuse(model) is model
    assert [(n, id(m)) for n, m in model.named_modules()] == before
    assert [(n, id(t)) for n, t in (*model.named_parameters(), *model.named_buffers())] == tensors
    assert list(model.state_dict()) == keys and repr(model) == text
    assert isinstance(model, tv.ResNet) and isinstance(model.layer1[0], (tv.BasicBlock, tv.Bottleneck))


def test_an_optimizer_made_before_keeps_training_the_model():
    models = [small_network(), resnet_fused.fuse(small_network())]
    late = small_network()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (*models, late)]
    resnet_fused.fuse(late)
    for _ in range(3):
        for model, optimizer in zip((*models, late), optimizers):
            optimizer.zero_grad()
            model(images(batch=4)).square().mean().backward()
            optimizer.step()
    eager, early = models
    for (name, a), b, c in zip(eager.named_parameters(), early.parameters(), late.parameters()):
        assert torch.equal(b, c) and same(a, b), name
        assert not torch.equal(a, small_network().get_parameter(name)) or name.endswith("bias")


def test_fusing_twice_changes_nothing():
    model = resnet_fused.fuse(small_network())
    before = [(type(m), id(m)) for m in model.modules()]
    assert resnet_fused.fuse(model) is model
    assert [(type(m), id(m)) for m in model.modules()] == before


@pytest.mark.parametrize("name", UNITS)
def test_unfuse_restores_types_and_bits(name):
    eager = network(name).eval()
    model = resnet_fused.fuse(copy.deepcopy(eager))
    model(images())
    assert resnet_fused.unfuse(model) is model
    assert [type(m) for m in model.modules()] == [type(m) for m in eager.modules()]
    assert torch.equal(model(images()), eager(images()))
    assert [vars(m).keys() for m in model.modules()] == [vars(m).keys() for m in eager.modules()]


def test_unfuse_in_training_is_bit_equal():
    eager = small_network()
    model = resnet_fused.unfuse(resnet_fused.fuse(copy.deepcopy(eager)))
    for m in (model, eager):
        m(images()).square().sum().backward()
    for (name, a), b in zip(model.named_parameters(), eager.parameters()):
        assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(model.named_buffers(), eager.buffers()):
        assert torch.equal(a, b), name


def test_unfuse_of_natively_built_blocks():
    native = tv.ResNet(resnet_fused.Bottleneck, [1, 1, 1, 1])
    resnet_fused.unfuse(native)
    assert type(native.layer1[0]) is tv.Bottleneck and type(native.layer1[0].downsample) is nn.Sequential
    assert type(resnet_fused.unfuse(resnet_fused.BasicBlock(8, 8))) is tv.BasicBlock


def test_unfuse_of_an_eager_model_changes_nothing():
    model = small_network()
    before = [type(m) for m in model.modules()]
    assert resnet_fused.unfuse(model) is model and [type(m) for m in model.modules()] == before


def test_unfuse_without_torchvision_changes_nothing(monkeypatch):
    model = resnet_fused.fuse(small_network())
    monkeypatch.setattr(blocks.tv, "INSTALLED", False)
    with pytest.raises(ImportError, match="pip install torchvision"):
        resnet_fused.unfuse(model)
    assert type(model.layer1[0]) is resnet_fused.BasicBlock


def test_nothing_to_fuse_warns():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    with pytest.warns(UserWarning, match="Sequential holds no torchvision ResNet blocks: nothing was fused"):
        assert resnet_fused.fuse(model) is model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resnet_fused.fuse(resnet_fused.fuse(small_network()))


def test_a_single_block():
    block = tv.BasicBlock(8, 8).double()
    assert type(resnet_fused.fuse(block)) is resnet_fused.BasicBlock
    assert runs(block, torch.randn(2, 8, 4, 4, dtype=torch.float64))[1] == ["cpu"]


class Doubled(tv.BasicBlock):
    def forward(self, x):
        return 2 * super().forward(x)


class DoubledResNet(tv.ResNet):
    def forward(self, x):
        return 2 * super().forward(x)


def test_subclasses_are_left_alone():
    torch.manual_seed(0)
    eager = DoubledResNet(Doubled, [1, 1, 1, 1]).double().eval()
    with pytest.warns(UserWarning, match="nothing was fused"):
        model = resnet_fused.fuse(copy.deepcopy(eager))
    assert type(model) is DoubledResNet and type(model.layer1[0]) is Doubled
    assert torch.equal(model(images()), eager(images()))


def test_a_replaced_forward_is_left_alone():
    model = small_network().eval()
    model.layer1[0].forward = lambda x: x + 1
    expected = copy.copy(model(images()))
    resnet_fused.fuse(model)
    assert type(model.layer1[0]) is tv.BasicBlock and type(model.layer2[0]) is resnet_fused.BasicBlock
    assert same(model(images()), expected)


@pytest.mark.parametrize("inner", (False, True))
def test_hooks_from_before_fusing_act(inner):
    calls = []
    eager, model = small_network().eval(), small_network().eval()
    for m in (eager, model):
        target = m.layer2[0].conv1 if inner else m.layer2[0]
        target.register_forward_hook(lambda module, inputs, output: calls.append(1) or output * 2)
    resnet_fused.fuse(model)
    out, backends = runs(model, images())
    assert calls == [1] and same(out, eager(images()))
    assert backends == ["cpu", "cpu", None if inner else "cpu", "cpu", "cpu"]


@pytest.mark.parametrize("clone", (copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))))
def test_copies_are_fused_too(clone):
    model = resnet_fused.fuse(small_network().eval())
    again = clone(model)
    assert [type(m) for m in again.modules()] == [type(m) for m in model.modules()]
    out, backends = runs(again, images())
    assert backends == ["cpu"] * 5 and torch.equal(out, model(images()))


def test_checkpoints_pass_both_ways():
    eager, fused = small_network(), resnet_fused.fuse(small_network())
    fused(images())
    file = io.BytesIO()
    torch.save(fused.state_dict(), file)
    file.seek(0)
    eager.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(eager.state_dict().values(), fused.state_dict().values()))
    assert same(eager.eval()(images()), fused.eval()(images()))
    resnet_fused.fuse(small_network()).load_state_dict(eager.state_dict(), strict=True)


@pytest.mark.parametrize("training", (True, False))
def test_detection_backbones_with_frozen_batch_norms(training):
    """torchvision.models.detection builds its backbones of FrozenBatchNorm2d."""
    eager = small_network(tv.Bottleneck, norm_layer=FrozenBatchNorm2d).train(training)
    generator = torch.Generator().manual_seed(4)
    for module in eager.modules():
        if isinstance(module, FrozenBatchNorm2d):
            for name, buffer in module.named_buffers():
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    fused = resnet_fused.fuse(copy.deepcopy(eager))
    results = []
    with record() as records:
        for model in (eager, fused):
            out = model(images())
            out.square().sum().backward()
            results.append((out, *(p.grad for p in model.parameters())))
    assert [r.backend for r in records] == ["cpu"] * 5
    for theirs, ours in zip(*results):
        scale = theirs.abs().max()
        assert torch.allclose(ours / scale, theirs / scale, rtol=1e-10, atol=1e-10)  # float64 rounding, as in same()
    assert all(torch.equal(a, b) for a, b in zip(fused.buffers(), eager.buffers()))


def test_detection_backbone_with_fpn():
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    torch.manual_seed(0)
    eager = resnet_fpn_backbone(backbone_name="resnet18", weights=None).double()
    fused = resnet_fused.fuse(copy.deepcopy(eager))
    out, backends = runs(fused, images(size=64))
    assert backends == ["cpu"] * 8  # its body is no ResNet but a dictionary of a ResNet's layers: no stem
    for key, value in eager(images(size=64)).items():
        assert same(out[key], value)


def test_segmentation_model():
    torch.manual_seed(0)
    eager = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None).eval()
    fused = resnet_fused.fuse(copy.deepcopy(eager))
    out, backends = runs(fused, images(torch.float32))
    assert backends == ["cpu"] * 16
    # float32 through 50 layers: eps·sqrt(50 layers)·a gain of 100
    assert torch.allclose(out["out"], eager(images(torch.float32))["out"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", (True, False))
def test_convert_sync_batchnorm(training):
    """It rebuilds every batch norm as a SyncBatchNorm, before or after fusing; the units stay fused."""
    model = small_network().train(training)
    expected = resnet_fused.fuse(copy.deepcopy(model))(images())
    after = nn.SyncBatchNorm.convert_sync_batchnorm(resnet_fused.fuse(copy.deepcopy(model)))
    before = resnet_fused.fuse(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)))
    for converted in (after, before):
        assert type(converted.layer1[0]) is resnet_fused.BasicBlock and type(converted.bn1) is nn.SyncBatchNorm
        out, backends = runs(converted, images())
        assert same(out, expected) and backends == ["cpu"] * 5


@pytest.mark.slow  # autograd/test_compile.py compiles some every day
@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("build", (small_network, network))  # network: ResNet-18
def test_compiled(build, training):
    eager = build().train(training)
    fused = resnet_fused.fuse(copy.deepcopy(eager))
    torch._dynamo.reset()
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    gradients = []
    for model in (compiled, eager):
        out = model(images(size=64))
        out.square().mean().backward()
        gradients.append([out.detach(), *(p.grad for p in model.parameters()), *model.buffers()])
    for ours, theirs in zip(*gradients):
        scale = theirs.abs().max().clamp_min(1e-30).double()
        # float64 through 18 layers, both ways: the bound of whole networks
        assert torch.allclose(ours / scale, theirs / scale, rtol=1e-9, atol=1e-9)


def test_moves_with_the_model():
    """dtype, memory format and device moves after fusing act on it as on any module."""
    model = resnet_fused.fuse(small_network()).float().to(memory_format=torch.channels_last)
    x = images(torch.float32).contiguous(memory_format=torch.channels_last)
    out, backends = runs(model, x)
    assert out.dtype == torch.float32 and backends == ["cpu"] * 5
    assert runs(model.bfloat16(), x.bfloat16())[1] == ["cpu"] * 5
    assert runs(model.half(), x.half())[1] == ["cpu"] * 5
