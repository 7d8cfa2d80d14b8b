"""Which convolution runs: Triton's, or the library's with our passes around it."""

from resnet_fused.backends.triton.conv_library import conv_backward, conv_dgrad, conv_fprop, conv_wgrad

__all__ = ["conv_backward", "conv_dgrad", "conv_fprop", "conv_wgrad"]
