"""What kernels do with one element, or with a tile of them: all arithmetic is in the accumulation dtype."""

import triton
import triton.language as tl


@triton.jit
def to_acc(x):
    """float64 stays; float32, bfloat16 and float16 become float32."""
    return x if x.dtype.is_fp64() else x.to(tl.float32)


@triton.jit
def zero_up_to_zero(argument, x):
    """x where not (argument <= 0), so that NaN passes as in eager's ReLU and its gradient."""
    return tl.where(argument <= 0, 0, x)


@triton.jit
def load_row(rows, row: tl.constexpr, channel, channels):
    """Row `row` of an array [rows, channels], for the channels [BLOCK_C] of a tile → [1, BLOCK_C]."""
    return tl.load(rows + row * channels + channel, mask=channel < channels, other=0)[None, :]


@triton.jit
def load_affine(affine, channel, channels):
    """(mean, scale, shift), [1, BLOCK_C] each."""
    mean = load_row(affine, 0, channel, channels)
    return mean, load_row(affine, 1, channel, channels), load_row(affine, 2, channel, channels)


@triton.jit
def apply_affine(x, affine):
    """z(x) = (x - mean)·scale + shift. Forward and backward share this expression, so that their masks agree."""
    mean, scale, shift = affine
    return tl.fma(x - mean, scale, shift)
