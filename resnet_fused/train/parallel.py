"""A network trained by several processes: copies that average their gradients, or shards of its parameters.

DistributedDataParallel: Li et al. 2020 (PyTorch Distributed), section 3. FSDP2 (fully_shard): Zhao et al. 2023 (PyTorch
FSDP), section 3; each process holds a part of every parameter and of its optimizer's state, and all of a unit's while
that runs.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from resnet_fused.modules import FusedModule
from resnet_fused.train.processes import Processes
from resnet_fused.train.settings import Settings

DDP, FSDP = "ddp", "fsdp"
KINDS = (DDP, FSDP)


def replicated(network: nn.Module, settings: Settings, ranks: Processes) -> nn.Module:
    """The network in DistributedDataParallel, which is what training calls."""
    on_gpu = torch.device(settings.device).type == "cuda"
    wrapped = nn.parallel.DistributedDataParallel(network, device_ids=[ranks.local_rank] if on_gpu else None)
    if settings.sync_bn:  # now: on a CPU the wrapper refuses what is synchronized already
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return wrapped


def shard(network: nn.Module, settings: Settings, ranks: Processes) -> None:
    """Makes shards of the network's parameters, in place; before an optimizer is made of them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if settings.sync_bn:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    network.to(memory_format=torch.contiguous_format)  # fully_shard takes no other
    mesh = init_device_mesh(torch.device(settings.device).type, (ranks.size,))
    units = [module for module in network.modules() if isinstance(module, FusedModule) and module is not network]
    for module in (*reversed(units), network):  # from the inside out: each takes what is not taken
        fully_shard(module, mesh=mesh, reshard_after_forward=True)  # the outermost too: no backward follows a test


def is_sharded(network: nn.Module) -> bool:
    """Whether this process holds but a part of the network's parameters."""
    return any(map(_is_shard, network.parameters()))


def _is_shard(value: Any) -> bool:
    return hasattr(value, "full_tensor")


def whole(tree: Any) -> Any:
    """Dictionaries and lists of tensors and other values, with each shard replaced by its whole tensor on the CPU.

    All processes must call it at once.
    """
    if isinstance(tree, dict):
        return {key: whole(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [whole(value) for value in tree]
    return tree.full_tensor().cpu() if _is_shard(tree) else tree


def part(value: Any, like: Tensor) -> Any:
    """This process's part of a whole tensor, sharded as `like`; any other value as it is.

    All processes must call it at once: the first sends the parts.
    """
    if not _is_shard(like) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def average_shards(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]:
    """get_ema_multi_avg_fn for shards, beside which buffers are whole: each process averages what it holds."""
    update = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def average(averages: Sequence[Tensor], current: Sequence[Tensor], count: Any) -> None:
        update([_held(t) for t in averages], [_held(t) for t in current], count)

    return average


def _held(tensor: Any) -> Tensor:
    return tensor.to_local() if _is_shard(tensor) else tensor
