"""explain: a row for every unit, a reason for every unit left alone, and no trace left behind."""

import copy

import pytest
import torch
import torchvision
import torchvision.models.resnet as tv
from torch import nn

import resnet_fused
from resnet_fused import modules


def network(block=tv.BasicBlock, **options):
    torch.manual_seed(0)
    return tv.ResNet(block, [1, 1, 1, 1], num_classes=10, **options)


def images(size=32):
    return torch.randn(2, 3, size, size)


def test_resnet50_is_fused_throughout():
    model = resnet_fused.fuse(torchvision.models.resnet50())
    explanation = resnet_fused.explain(model, images())
    assert len(explanation.rows) == len(explanation.fused) == 17 and not explanation.left_alone
    assert explanation.rows[0][:3] == ("(model)", "stem", "cpu")
    names = [f"layer{i}.{j}" for i, n in enumerate((3, 4, 6, 3), 1) for j in range(n)]
    assert [row.name for row in explanation.rows[1:]] == names
    assert {row.unit for row in explanation.rows[1:]} == {"Bottleneck"}
    assert {row.reason for row in explanation.rows} == {"SIMD kernels for cpu float32"}


def test_the_table_reads():
    text = str(resnet_fused.explain(resnet_fused.fuse(network()), images()))
    lines = text.splitlines()
    assert lines[0].split() == ["unit", "kind", "runs", "why"]
    assert len(lines) == 7 and lines[-1] == "5 of 5 units fused"
    assert all("SIMD kernels for cpu float32" in line for line in lines[1:-1])


@pytest.mark.parametrize("training", (True, False))
def test_nothing_changes(training):
    """Weights, buffers, their identity, gradients, modes, hooks and the random state."""
    model = resnet_fused.fuse(network()).train(training)
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)
    before = copy.deepcopy(model.state_dict())
    identities = [id(t) for t in (*model.parameters(), *model.buffers())]
    x = images()
    kept, random = x.clone(), torch.get_rng_state()
    resnet_fused.explain(model, x)
    assert torch.equal(torch.get_rng_state(), random) and torch.equal(x, kept)
    assert [id(t) for t in (*model.parameters(), *model.buffers())] == identities
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(p.grad is None for p in model.parameters()) and model.training == training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_nothing_changes_where_the_model_raises():
    model = resnet_fused.fuse(network())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="expected input"):
        resnet_fused.explain(model, torch.randn(2, 5, 32, 32))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Doubled(tv.BasicBlock):
    def forward(self, x):
        return 2 * super().forward(x)


def test_reasons_of_units_left_alone():
    model = network()
    model.layer1[0].__class__ = Doubled
    model.layer2[0].forward = model.layer2[0].forward
    resnet_fused.fuse(model)
    model.layer3[0].conv1.register_forward_hook(lambda *_: None)
    model.layer4[0].bn2 = nn.GroupNorm(2, 512)
    rows = {row.name: row for row in resnet_fused.explain(model, images()).rows}
    assert rows["(model)"].backend == "cpu"
    reasons = {
        "layer1.0": "Doubled is a subclass of torchvision's BasicBlock and may compute otherwise",
        "layer2.0": "its forward was replaced on the instance",
        "layer3.0": "its inner Conv2d carries hooks or a replaced forward",
        "layer4.0": "it holds a GroupNorm where a BatchNorm2d or SyncBatchNorm or FrozenBatchNorm2d is fused",
    }
    for name, reason in reasons.items():
        assert rows[name].backend is None and rows[name].reason == reason, rows[name]


def test_an_eager_model_has_a_reason_for_every_batch_norm():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    (row,) = resnet_fused.explain(model, images()).rows
    assert row == ("1", "BatchNorm2d", None, "not part of a residual block or stem that is fused")


def test_blocks_not_yet_fused_say_so():
    """An eager torchvision network: each of its units is listed, none as fused."""
    explanation = resnet_fused.explain(network(), images())
    assert not explanation.fused and len(explanation.left_alone) >= 5


def test_a_unit_that_the_input_does_not_reach():
    model = resnet_fused.fuse(network())
    model.unused = resnet_fused.BasicBlock(8, 8)
    rows = {row.name: row for row in resnet_fused.explain(model, images()).rows}
    assert rows["unused"].backend is None
    assert rows["unused"].reason == "its own forward was not called for this input"


@pytest.mark.parametrize("backend, runs", (("eager", None), ("reference", "reference"), ("cpu", "cpu")))
def test_follows_the_backend_asked_for(backend, runs):
    model = resnet_fused.fuse(network())
    with resnet_fused.backend(backend):
        rows = resnet_fused.explain(model, images()).rows
    assert {row.backend for row in rows} == {runs} and {row.reason for row in rows} == {"asked for"}


def test_devices_without_kernels():
    model = resnet_fused.fuse(network()).to("meta")
    rows = resnet_fused.explain(model, images().to("meta")).rows
    assert {row.reason for row in rows} == {"backend 'cpu' has no kernels for device 'meta'"}


def test_shared_blocks_are_one_row():
    """A block used twice: one module, one row."""
    block = resnet_fused.BasicBlock(8, 8)
    model = nn.Sequential(block, block)
    (row,) = resnet_fused.explain(model, torch.randn(2, 8, 4, 4)).rows
    assert row[:3] == ("0", "BasicBlock", "cpu")


def test_textbook_and_conv_bn_act_are_units():
    model = nn.Sequential(resnet_fused.ConvBNAct(3, 8), resnet_fused.textbook.BasicBlock(8, 8))
    rows = resnet_fused.explain(model, images()).rows
    assert [row[:3] for row in rows] == [("0", "ConvBNAct", "cpu"), ("1", "BasicBlock", "cpu")]


UNITS = {  # of a block that keeps its shape, and of one that projects; both as one unit unless said
    "original": [{}, {}],
    "bn_after_add": [
        {"pre-activation chain", "batch norm and ReLU"}, {"pre-activation chain", "batch norm and ReLU"},
    ],
    "preactivation": [{}, {"pre-activation chain", "batch norm and ReLU"}],
}  # fmt: skip


@pytest.mark.parametrize("options", ({"reduction": 2}, {"shortcut": "exclusive_gating"}), ids=str)
@pytest.mark.parametrize("ordering", UNITS)
def test_every_unit_of_a_block_has_a_row(ordering, options):
    """What runs is counted, call by call, and the last line says it."""
    build, options = modules.ORDERINGS[ordering], modules.BlockOptions(**options)
    model, x = nn.Sequential(build(4, 4, options=options), build(4, 6, 2, options=options)), torch.randn(2, 4, 6, 6)
    table = resnet_fused.explain(model, x)
    with modules.record() as records:
        model(x)
    assert len(table.rows) == len(records) and str(table).endswith(f"{len(records)} of {len(records)} units fused")
    for name, units in zip("01", UNITS[ordering]):
        kinds = {row.unit for row in table.rows if row.name == name}
        assert kinds == ({f"{build.__name__}, {unit}" for unit in units} or {build.__name__})


def test_one_unit_of_a_block_runs_eager():
    block = modules.ORDERINGS["bn_after_add"](4, 4)
    block.conv1.register_forward_hook(lambda *_: None)
    table = resnet_fused.explain(block, torch.randn(2, 4, 6, 6))
    assert [(row.name, row.backend) for row in table.rows] == [("(model)", None), ("(model)", "cpu")]
    assert str(table).endswith("1 of 2 units fused")
