"""tune: measures what the units of a model could run, ahead of time."""

from __future__ import annotations

from typing import Callable

from torch import Tensor, nn

from resnet_fused import dispatch
from resnet_fused.modules import FusedModule, Record
from resnet_fused.surgery.explain import Explanation, call_without_trace, explain


class _Reporting(list):
    """A list that calls `notify` with what is appended."""

    def __init__(self, notify: Callable[[Record], object]) -> None:
        super().__init__()
        self._notify = notify

    def append(self, record: Record) -> None:
        super().append(record)
        self._notify(record)


def tune(
    model: nn.Module, x: Tensor, again: bool = False, notify: Callable[[Record], object] | None = None
) -> Explanation:
    """Measures, for every unit of a fused model, our kernels, PyTorch's libraries with our passes, and eager PyTorch.

    Call it as the model will be called: same shape, dtype, memory format and number of threads, in training mode and
    with gradients, or within torch.no_grad(); each is measured apart. Then each unit runs what was fastest, in this
    process and, through the tuning cache (dispatch/tuned.py), in others on the same machine. Units that are in the cache
    are not measured, unless `again`. Weights, buffers, gradients and the random state stay as they are. Takes about
    a second for each different unit; `notify` is called after each. Returns explain(model, x).
    """
    with dispatch.measuring("again" if again else "always"):
        call_without_trace(model, x, _Reporting(notify or (lambda record: None)))
    return explain(model, x)


def units(model: nn.Module) -> int:
    """How often tune() will notify of a model each of whose fused modules is one unit, called once."""
    return sum(isinstance(module, FusedModule) for module in model.modules())
