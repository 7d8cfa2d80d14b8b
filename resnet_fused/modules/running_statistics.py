"""The update of running statistics behind a fused unit, as nn.BatchNorm2d does it: one call for all its batch norms."""

from __future__ import annotations

import torch
from torch import Tensor

from resnet_fused import ops
from resnet_fused.autograd.synchronize import UNBIASED_COUNT
from resnet_fused.modules.members import Branch


def tracks(branch: Branch) -> bool:
    """nn.BatchNorm2d.forward's rule for updating the running statistics."""
    return branch.unit.batch_stats and branch.bn.track_running_stats and branch.bn.training


@torch.no_grad()
def update_running_statistics(backend: str, branches: list[Branch], statistics, sizes) -> bool:
    """running = (1 − momentum)·running + momentum·batch, with the unbiased variance M2 / (N·P·Q − 1).

    statistics: per branch [2, C], as residual_chain returns them; sizes: per branch N, C, P, Q. Returns whether there
    was any to update.
    """
    norms, counters, any_tracks = [], [], False
    for branch, stats, (N, _, P, Q) in zip(branches, statistics, sizes):
        if not tracks(branch):
            continue
        any_tracks, momentum, counter = True, branch.bn.momentum, branch.bn.num_batches_tracked
        if counter is not None:
            if momentum is None:  # cumulative average
                counter.add_(1)
                momentum = 1.0 / float(counter)
            elif _is_counted(counter, stats):
                counters.append(counter)
            else:
                counter.add_(1)
        if branch.norm.running_mean is not None and momentum:
            count = N * P * Q if branch.unit.group is None else UNBIASED_COUNT
            norms.append((stats, count, float(momentum), branch.norm.running_mean, branch.norm.running_var))
    if norms:
        # Compiled, plain operations are fused with others; ours would have its arguments copied.
        kernels = ops.get("reference" if torch.compiler.is_compiling() else backend)
        kernels.bn_update_running(*map(list, zip(*norms)), counters)
    else:
        for counter in counters:
            counter.add_(1)
    return any_tracks


def _is_counted(counter: Tensor, stats: Tensor) -> bool:
    """Whether it is what nn.BatchNorm2d makes, which the kernel takes."""
    return counter.dtype is torch.int64 and counter.dim() == 0 and counter.device == stats.device
