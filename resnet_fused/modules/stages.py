"""Stages of residual blocks, run so that each block hands its input's gradient on (autograd/handover.py)."""

from __future__ import annotations

from typing import Iterable, Iterator

import torch
from torch import Tensor, nn

from resnet_fused import autograd, dispatch
from resnet_fused.autograd import handover
from resnet_fused.modules.fused import Ahead, FusedModule
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
        modules = list(_opened(stages))
        ahead = _prepared_ahead(x, modules)
        for unit in ahead:
            x = unit(x)
        for module in modules[len(ahead) :]:
            if _keeps_nothing(module):
                x = module(x)
            else:
                handover.interrupt()
                with handover.together(False):
                    x = module(x)
    return x


def _prepared_ahead(x: Tensor, modules: list[nn.Module]) -> list[Ahead]:
    """The first of the modules, those that can be prepared before any of them has run.

    In inference on a CPU. What a convolution does empties the caches, of Python's code and data too: prepared between
    two blocks, the next one takes three times as long as right behind the one before.
    """
    cpu = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not dispatch.measures("cpu")
    if torch.is_grad_enabled() or not cpu or not autograd.unobserved(()):
        return []
    units: list[Ahead] = []
    for module in modules:
        x = units[-1].frozen.empty(x) if units else x
        own = type(module).forward is FusedModule.forward and _is_plain(module)
        if not own or (unit := module.ahead(x)) is None:
            break
        units.append(unit)
    return units


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
