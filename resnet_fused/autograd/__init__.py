"""torch.autograd.Functions of the fused units: what is saved and the order of calls, nothing else."""

from resnet_fused.autograd.chain import (
    BatchNorm,
    Chain,
    Conv,
    Unit,
    frozen_chains,
    frozen_tensors,
    residual_chain,
    unobserved,
)
from resnet_fused.autograd.norm_act import norm_act
from resnet_fused.autograd.preactivation import Norm, PreChain, PreUnit, preactivation_chain
from resnet_fused.autograd.stem import stem

__all__ = ["BatchNorm", "Chain", "Conv", "Norm", "PreChain", "PreUnit", "Unit", "frozen_chains",
           "frozen_tensors", "norm_act", "preactivation_chain", "residual_chain", "stem", "unobserved"]  # fmt: skip
