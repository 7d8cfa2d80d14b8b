"""How the networks' weights are drawn."""

from __future__ import annotations

from torch import nn

from resnet_fused.modules import FusedModule
from resnet_fused.modules.shortcuts import Gate


def initialise(model: nn.Module, zero_init_residual: bool = False, linear_std: float | None = None) -> None:
    """Draws every weight anew, in the order of the modules and so with torchvision's draws.

    Convolutions: normal with variance 2 / (K·R·S), biases 0 (He et al. 2015, Delving Deep into Rectifiers, section 2.2,
    the variance that keeps the gradients'), but for shortcuts' gates, whose biases have a start of their own. Batch
    norms: scale 1, shift 0. Linear layers: as torch.nn.Linear draws them, or normal(0, linear_std²) with biases 0
    (Simonyan & Zisserman 2015, section 3.1).
    zero_init_residual: scale 0 in the last batch norm of every residual branch, so that each block starts as its
    shortcut (Goyal et al. 2017, Accurate, Large Minibatch SGD, section 5.1).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, 0, linear_std)
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Gate):
            module.reset_bias()
    if zero_init_residual:
        for module in model.modules():
            if isinstance(module, FusedModule) and hasattr(module, "bn2"):
                nn.init.zeros_((module.bn3 if hasattr(module, "bn3") else module.bn2).weight)
