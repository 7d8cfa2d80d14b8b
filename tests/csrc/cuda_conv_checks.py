"""What the CUDA convolutions by themselves are held to: float64's sums, rounded where the kernels round."""

import types

import torch
import torch.nn.functional as F
from tolerance import assert_bit_equal

from resnet_fused import ops

reference = ops.get("reference")


def rounded_once(dtype):
    """The operators with float64 sums, rounded where the kernels do: operands, and results when they are stored."""

    def stored(x):
        return x.to(dtype).double()

    def conv_fprop(x, weight, stride, padding, dilation, groups, prologue, prologue_relu, statistics, epilogue,
                   residual, residual_affine, relu):  # fmt: skip
        operand = x if prologue is None else stored(reference.bn_apply(x, prologue, prologue_relu))
        y = F.conv2d(operand, weight, None, stride, padding, dilation, groups)
        if epilogue is not None:
            return reference.bn_apply(y, epilogue, relu, residual, residual_affine), None
        return y, reference.bn_statistics(stored(y)) if statistics else None

    def conv_backward(grad, out, raw, affine, means, relu, x, weight, stride, padding, dilation, groups, prologue,
                      prologue_relu, reduce, add, add_out, output_mask):  # fmt: skip
        if raw is not None:
            grad = stored(reference.bn_backward_apply(grad, out, raw, affine, relu, means))
        elif relu:
            grad = grad.masked_fill(out <= 0, 0)
        operand = x if prologue is None else stored(reference.bn_apply(x, prologue, prologue_relu))
        conv = (stride, padding, dilation, False, [0, 0], groups)
        dx, dw, _ = torch.ops.aten.convolution_backward(grad, operand, weight, None, *conv, [True, True, False])
        if add is not None:
            dx = stored(dx) + (add if add_out is None else add.masked_fill(add_out <= 0, 0))
        sums = reference.bn_backward_reduce(stored(dx), None, x, prologue, prologue_relu) if reduce else None
        return dx if output_mask[0] else None, dw if output_mask[1] else None, sums

    def conv_dgrad(*arguments):
        dx, _, sums = conv_backward(*arguments, (True, False))
        return dx, sums

    def conv_wgrad(*arguments):
        return conv_backward(*arguments, False, None, None, (False, True))[1]

    return types.SimpleNamespace(
        conv_fprop=conv_fprop, conv_backward=conv_backward, conv_dgrad=conv_dgrad, conv_wgrad=conv_wgrad
    )


def check_integers(convolutions, case, dtype):
    """Bit-equal; but statistics are means, and what exceeds float32's integers is a few roundings off."""
    ours, expected = case.run(convolutions), case.double().run(rounded_once(dtype))
    for i, (a, b) in enumerate(zip(ours, expected)):
        if b is None:
            assert not a.numel()
        elif a.dim() == 2 and (case.operator == "conv_fprop" or b.abs().max() > 2**24):
            torch.testing.assert_close(a.double(), b, rtol=4 * 2**-24, atol=4 * 2**-24 * b.abs().max().item())
        else:
            assert_bit_equal(a, b.to(a.dtype))
