"""The chain of frozen units, on Triton's convolutions."""

from resnet_fused.backends.frozen_chains import run_frozen_chains
from resnet_fused.backends.triton.bn_statistics import bn_finalize
from resnet_fused.backends.triton.conv import conv_fprop


def frozen_chains(*arguments):
    return run_frozen_chains(conv_fprop, bn_finalize, *arguments)
