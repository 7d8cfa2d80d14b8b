"""The processes of a run: how they find each other, what each does of the work, and how all end where one fails."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import Any, Callable, Iterator, NamedTuple, Sequence, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from resnet_fused.bench.requirements import MissingPackage
from resnet_fused.train.settings import TrainError

T = TypeVar("T")


class SaidElsewhere(TrainError):
    """What another process of the run fails by, and tells the user."""


class Processes(NamedTuple):
    """All processes of a run, of which this is number `rank`; local: their numbers on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is this process that writes files and tells the user."""
        return self.rank == 0

    def portion(self, work: Sequence[T]) -> Sequence[T]:
        """This process's part: all parts follow each other, as equal as possible, the larger ones first."""
        least, more = divmod(len(work), self.size)
        start = self.rank * least + min(self.rank, more)
        return work[start : start + least + (self.rank < more)]

    def total(self, *values: float) -> list[float]:
        """The sums over all processes."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def agree(self, value: Any) -> bool:
        """Whether all processes have equal values."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return all(other == value for other in values)

    def share_buffers(self, network: nn.Module) -> None:
        """Gives the first process's buffers to all, as DistributedDataParallel does before each step."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def failure(self, message: str) -> TrainError:
        """What all processes raise at once for a reason that all have: it is said by the first."""
        return TrainError(message) if self.first else SaidElsewhere(message)

    def together(self, work: Callable[[], T]) -> T:
        """work() in all processes. Where it raises TrainError or MissingPackage in any, none goes on.

        The first of those that failed raises its error, the others SaidElsewhere.
        """
        if self.size == 1:
            return work()
        result: Any = None
        mine: TrainError | MissingPackage | None = None
        try:
            result = work()
        except (TrainError, MissingPackage) as error:
            mine = error
        reasons: list[str | None] = [None] * self.size
        dist.all_gather_object(reasons, None if mine is None else str(mine))
        failed = [rank for rank, reason in enumerate(reasons) if reason is not None]
        if not failed:
            return result
        raise mine if mine is not None and failed[0] == self.rank else SaidElsewhere(reasons[failed[0]])


ALONE = Processes()


@contextlib.contextmanager
def joined(timeout: float) -> Iterator[Processes]:
    """This process among the others that torchrun started, or ALONE; they find each other by the environment.

    CPU tensors go by gloo, CUDA's by nccl. A group that exists already is used and left. timeout: seconds that a
    process waits for the others. Raises TrainError where they are not found, where one of them ends or does not answer
    in time, and names this process in errors of its own.
    """
    ranks, ours = _join(timeout)
    try:
        yield ranks
    except SaidElsewhere:
        raise
    except TrainError as error:
        if ranks.first:
            raise
        raise TrainError(f"process {ranks.rank} of {ranks.size}: {error}") from error
    except RuntimeError as error:
        if ranks.size == 1 or not _is_of_communication(error):
            raise
        raise TrainError(
            f"process {ranks.rank} of {ranks.size}: another process ended, or did not answer within {timeout:g} s; "
            f"every epoch that was saved is whole, go on with --resume ({_line(error)})"
        ) from error
    if ours:
        dist.destroy_process_group()


def _join(timeout: float) -> tuple[Processes, bool]:
    """→ the processes, and whether the group is of our making."""
    if dist.is_available() and dist.is_initialized():
        return _numbers(dist.get_rank(), dist.get_world_size()), False
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE, False
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=timedelta(seconds=timeout))
    except (RuntimeError, ValueError) as error:  # ValueError: of the environment's variables one is missing
        raise TrainError(f"the processes of this run did not find each other: {_line(error)}") from error
    return _numbers(dist.get_rank(), dist.get_world_size()), True


def _numbers(rank: int, size: int) -> Processes:
    local = (("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", size))
    return Processes(rank, size, *(int(os.environ.get(name, otherwise)) for name, otherwise in local))


def _is_of_communication(error: RuntimeError) -> bool:
    """gloo raises bare RuntimeErrors, most of which begin with the place in its source."""
    words = ("gloo", "nccl", "connection", "timeout", "timed out")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def _line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())
