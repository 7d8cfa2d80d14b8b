"""Memory of a step: bytes saved for backward, and the process's resident set."""

from __future__ import annotations

import ctypes
import resource

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def saved_for_backward(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Bytes of the distinct storages that one training forward keeps for backward.

    Parameters and buffers are left out: they are alive anyway. The input batch counts where it is saved.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        # The storage is kept, not just its address: a freed one could hand its address to the next.
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    model.zero_grad(set_to_none=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = F.cross_entropy(model(images), labels)
    total = sum(storage.nbytes() for storage in storages.values())
    del loss
    return total


def resident_bytes() -> int:
    """Resident set of this process now (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak_resident_bytes() -> int:
    """Largest resident set of this process so far, or since ``forget_peak`` (Linux)."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # some sandboxes leave VmHWM out


def forget_peak() -> None:
    """Hand freed memory back to the system and let the peak start anew, so that neither shows what went before."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        pass  # not glibc
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # not allowed here: the peak goes on
