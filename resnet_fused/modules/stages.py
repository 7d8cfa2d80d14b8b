"""Stages of residual blocks, run so that each block hands its input's gradient on (autograd/handover.py)."""

from __future__ import annotations

from typing import Iterable, Iterator

import torch
from torch import Tensor, nn

from resnet_fused.autograd import handover
from resnet_fused.modules.fused import FusedModule
from resnet_fused.modules.members import check_global_hooks, check_plain, holds
from resnet_fused.modules.residual import ResidualBlock


def run_stages(x: Tensor, stages: Iterable[nn.Module]) -> Tensor:
    """x through the stages one after another, which are nn.Sequentials of blocks or any other modules.

    What one fused block leaves for the next nobody else sees, if neither they nor the nn.Sequential around them carry
    hooks. In graphs that are captured (torch.compile, torch.fx, torch.jit.trace) and where there are hooks on all
    modules stages are called as they are.
    """
    captured = not isinstance(x, Tensor) or torch.compiler.is_compiling() or torch.jit.is_tracing()
    if captured or not holds(check_global_hooks):
        for stage in stages:
            x = stage(x)
        return x
    with handover.together():
        for module in _opened(stages):
            if _keeps_nothing(module):
                x = module(x)
            else:
                handover.interrupt()
                with handover.together(False):
                    x = module(x)
    return x


def _opened(stages: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for stage in stages:
        if type(stage) is nn.Sequential and _is_plain(stage):
            yield from stage
        else:
            yield stage


def _keeps_nothing(module: nn.Module) -> bool:
    """A fused block whose input and output only its caller has; a subclass's forward may do anything with them."""
    return type(module).forward in (FusedModule.forward, ResidualBlock.forward) and _is_plain(module)


def _is_plain(module: nn.Module) -> bool:
    return holds(check_plain, module) and module._compiled_call_impl is None
