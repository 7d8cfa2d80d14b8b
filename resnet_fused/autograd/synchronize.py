"""Batch norms whose statistics are those of several processes' batches together, as torch.nn.SyncBatchNorm's.

One small collective in each direction. Process r has n_r values of a channel (0 in an empty shard), n = Σ n_r:

    forward     all-gather (mean_r, M2_r, n_r):  mean = Σ n_r·mean_r / n,  M2 = Σ (M2_r + n_r·(mean_r − mean)²)
    backward    all-reduce (Σg, Σg·x̂, n_r):      means = (Σg, Σg·x̂) / n

The gradients of weight and bias stay this process's own sums, which DistributedDataParallel then averages. Counts
travel with the sums, so that no host waits for a device. Chan, Golub & LeVeque 1979 (Updating formulae and a pairwise
algorithm for computing sample variances), equation 2.1, for any number of parts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

UNBIASED_COUNT = 2  # of (mean, unbiased variance) as statistics: M2 / (count − 1) is then the variance


class Together(NamedTuple):
    """Of all processes' values: [2, C] each, in the accumulation dtype, bit-equal in every process."""

    biased: Tensor  # mean, M2 / n: statistics of a count of 1
    unbiased: Tensor  # mean, M2 / (n − 1): statistics of UNBIASED_COUNT


def merge_statistics(stats: Tensor, count: int, group: dist.ProcessGroup) -> Together:
    """stats [2, C] (mean, M2) of `count` values here, whatever they are where count is 0 → those of all processes."""
    own = stats.new_zeros(2 * stats.shape[1] + 1)
    if count:
        own[:-1].copy_(stats.flatten())
        own[-1] = count
    parts = own.new_empty(dist.get_world_size(group), own.numel())
    dist.all_gather(list(parts), own, group)
    return _merged(parts)


def _merged(parts: Tensor) -> Together:
    """parts: a row of means, M2s and a count per process, all in the same order everywhere.

    In float64: differences of means and counts above 2²⁴ lose nothing more to rounding.
    """
    rows = parts.double()
    counts = rows[:, -1:]  # [processes, 1]
    means, m2s = rows[:, :-1].chunk(2, 1)
    n = counts.sum()
    mean = (counts * means).sum(0) / n.clamp(min=1)
    m2 = (m2s + counts * (means - mean).square()).sum(0)
    biased, unbiased = torch.stack((mean, m2 / n.clamp(min=1))), torch.stack((mean, m2 / (n - 1)))
    return Together(biased.to(parts.dtype), unbiased.to(parts.dtype))


def mean_sums(sums: Tensor, count: int, group: dist.ProcessGroup) -> Tensor:
    """sums [2, C] (Σg, Σg·x̂) of `count` values here → their means over all processes' values."""
    together = torch.cat((sums.flatten(), sums.new_full((1,), count)))
    dist.all_reduce(together, dist.ReduceOp.SUM, group)
    return (together[:-1] / together[-1].clamp(min=1)).view_as(sums)
