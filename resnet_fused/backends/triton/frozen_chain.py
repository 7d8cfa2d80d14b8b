"""The chain of frozen units, on Triton's convolutions."""

from resnet_fused.backends.frozen_chain import run_frozen_chain
from resnet_fused.backends.triton.bn_statistics import bn_finalize
from resnet_fused.backends.triton.conv import conv_fprop


def frozen_chain(*arguments):
    return run_frozen_chain(conv_fprop, bn_finalize, *arguments)
