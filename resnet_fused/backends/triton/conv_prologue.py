"""Prologues: the operands of the product, tiles [pixels, channels], as functions of the tensors that are in memory.

They are formed in float32 and rounded once, to the tensors' type. Where `inside` is false, in the padding and beyond
the ends, an operand is zero whatever the batch norm says: padding comes after it. Tensors that are None are not there,
and cost nothing.
"""

import triton
import triton.language as tl

from resnet_fused.backends.triton.element import apply_affine, load_affine, load_row, zero_up_to_zero


@triton.jit
def load_activation(x, affine, offset, inside, channel, channels, RELU: tl.constexpr):
    """[relu] z(x; affine) at `offset` of x, or x without affine."""
    value = tl.load(x + offset, mask=inside, other=0.0)
    if affine is not None:
        z = apply_affine(value.to(tl.float32), load_affine(affine, channel, channels))
        if RELU:
            z = zero_up_to_zero(z, z)
        value = tl.where(inside, z, 0.0).to(x.dtype.element_ty)
    return value


@triton.jit
def load_masked(grad, out, offset, inside):
    """grad where not (out <= 0), in float32."""
    g = tl.load(grad + offset, mask=inside, other=0.0).to(tl.float32)
    if out is not None:
        g = zero_up_to_zero(tl.load(out + offset, mask=inside, other=0.0), g)
    return g


@triton.jit
def load_draw(grad, out, raw, affine, means, offset, inside, channel, channels, RELU: tl.constexpr):
    """The gradient of the convolution's output.

    g = grad where not (out <= 0), or without out where not (z(raw) <= 0), or without RELU everywhere;
    draw = scale * (g - means[0] - xhat * means[1]) with xhat = (raw - mean) * invstd, or g without raw.
    """
    g = load_masked(grad, out if RELU else None, offset, inside)
    if raw is not None:
        x = tl.load(raw + offset, mask=inside, other=0.0).to(tl.float32)
        mean, scale, shift = load_affine(affine, channel, channels)
        if RELU and out is None:
            g = zero_up_to_zero(apply_affine(x, (mean, scale, shift)), g)
        slope = load_row(affine, 3, channel, channels) * load_row(means, 1, channel, channels)
        draw = scale * tl.fma(-slope, x - mean, g - load_row(means, 0, channel, channels))
        g = tl.where(inside, draw, 0.0)
    return g.to(grad.dtype.element_ty)
