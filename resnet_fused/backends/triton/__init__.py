"""Triton kernels for NVIDIA GPUs: the operators of resnet_fused.ops under their names. Needs no nvcc.

    sweep.py            how a grid shares out a tensor: pure functions of its shape
    tile.py, element.py the same on the device: a program's tiles; a tile's elements
    bn_statistics.py, bn_apply.py, bn_backward.py, stem_pool.py
                        kernels and the operators that launch them; a kernel has the name of its twin in csrc/cuda
    conv_tile.py, conv_prologue.py, conv_epilogue.py
                        what the convolutions' kernels are made of
    conv_fprop.py, conv_dgrad.py, conv_wgrad.py
                        the kernels, and how they are launched
    conv_plan.py, tuning.py
                        the tilings, a problem's tiles by one of them, and which one it is
    conv.py             the convolutions' operators; conv_library.py: the library's with our passes around it
    dense.py, launch.py tensors as the kernels want them; the one place where kernels are started

Equations, shapes and dtypes are those of resnet_fused.ops. Results are the same bits every time: sums are taken in two
stages, in an order that depends on the shape alone, without atomics. Importing this package imports triton; so backends
do not before one of these functions is called, which are torch.ops.resnet_fused_triton's too (backends/traceable.py).
"""

from resnet_fused.backends.reference import bn_backward_finalize, bn_update_running
from resnet_fused.backends.triton.bn_apply import bn_apply, bn_apply_mask
from resnet_fused.backends.triton.bn_backward import bn_backward_apply, bn_backward_mask_reduce, bn_backward_reduce
from resnet_fused.backends.triton.bn_statistics import bn_finalize, bn_statistics
from resnet_fused.backends.triton.conv import conv_backward, conv_dgrad, conv_fprop, conv_wgrad
from resnet_fused.backends.triton.frozen_chains import frozen_chains
from resnet_fused.backends.triton.stem_pool import stem_pool, stem_pool_backward_apply, stem_pool_backward_reduce

__all__ = [
    "bn_apply",
    "bn_apply_mask",
    "bn_backward_apply",
    "bn_backward_finalize",
    "bn_backward_mask_reduce",
    "bn_backward_reduce",
    "bn_finalize",
    "bn_statistics",
    "bn_update_running",
    "conv_backward",
    "conv_dgrad",
    "conv_fprop",
    "conv_wgrad",
    "frozen_chains",
    "stem_pool",
    "stem_pool_backward_apply",
    "stem_pool_backward_reduce",
]
