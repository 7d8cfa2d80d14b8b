"""Bytes that training keeps from forward to backward, fused over eager, at 224x224."""

import copy
import gc

import pytest
import torch
import torchvision
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import resnet_fused

# The project's targets. They follow from what a block keeps: x, its raw convolution outputs and its own output,
# where eager keeps the batch norms' inputs and the ReLUs' outputs as well. Counts of bytes, not timings: exact.
CASES = (
    ("resnet18", "train", 0.67),
    ("resnet50", "train", 0.80),
    ("resnet50", "frozen", 0.45),
)


class Storages(TorchDispatchMode):
    """Weak references to the storage of every tensor that any operator returns."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                self.seen.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        return result

    def alive(self):
        gc.collect()
        return {key: nbytes for key, (ref, nbytes) in self.seen.items() if not ref.expired()}


def forward(model, x):
    """→ (bytes saved for backward, bytes alive after forward): distinct storages, parameters and buffers aside."""
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with Storages() as storages, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(x)
    alive = {key: nbytes for key, nbytes in storages.alive().items() if key not in own}
    alive[x.untyped_storage()._cdata] = x.untyped_storage().nbytes()
    assert out.requires_grad
    return sum(saved.values()), sum(alive.values())


@pytest.mark.slow
@pytest.mark.parametrize("name, mode, bound", CASES)
def test_bytes_saved_for_backward(name, mode, bound):
    torch.manual_seed(0)
    eager = getattr(torchvision.models, name)()
    if mode == "frozen":
        for module in eager.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    fused = resnet_fused.fuse(copy.deepcopy(eager))
    x = torch.randn(1, 3, 224, 224)
    eager_saved, eager_alive = forward(eager, x)
    saved, alive = forward(fused, x)
    mib = 2**20
    print(
        f"{name} {mode}: saved {saved / mib:.1f} of {eager_saved / mib:.1f} MiB, {saved / eager_saved:.3f}; "
        f"alive {alive / mib:.1f} of {eager_alive / mib:.1f}, {alive / eager_alive:.3f}"
    )
    assert saved <= bound * eager_saved
    assert alive <= bound * eager_alive
    # Nothing large lives on outside of what is saved; the output and the graph's scalars are 1 % at most.
    assert alive <= 1.01 * saved


def test_nothing_is_kept_without_gradients():
    torch.manual_seed(0)
    fused = resnet_fused.fuse(torchvision.models.resnet18())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), Storages() as storages:
        out = fused(x)
    kept = set(storages.alive()) - {t.untyped_storage()._cdata for t in (*fused.parameters(), *fused.buffers())}
    assert kept == {out.untyped_storage()._cdata}


def test_backward_frees_what_forward_kept():
    torch.manual_seed(0)
    fused = resnet_fused.fuse(torchvision.models.resnet18())
    x = torch.randn(2, 3, 64, 64)
    with Storages() as storages:
        loss = fused(x).square().mean()
    before = sum(storages.alive().values())
    loss.backward()
    own = {t.untyped_storage()._cdata for t in (*fused.parameters(), *fused.buffers(), loss)}
    left = {key: nbytes for key, nbytes in storages.alive().items() if key not in own}
    # The output's gradient graph is gone: what may remain are vectors of a channel, not one activation.
    assert sum(left.values()) <= 0.01 * before
