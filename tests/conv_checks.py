"""What the convolutions of every GPU backend are held to, and on which problems."""

import types

import torch
import torch.nn.functional as F
from operator_cases import MODES
from problems import ConvProblem
from tolerance import assert_bit_equal, assert_oracle, rounded_terms, stored_rounding

from resnet_fused import ops

reference = ops.get("reference")
CONV_MODES = [
    mode
    for mode in MODES
    if mode.startswith(("fprop", "backward", "dgrad", "wgrad"))
    and not mode.startswith(("backward_nothing", "backward_apply", "backward_sum"))
]

# What ragged tiles, pieces of 16 bytes and the pipeline have to address, beside the table shared with the CPU.
TILES = (
    ConvProblem("pieces", 2, 40, 9, 11, 72, 3, 3, padding=(1, 1)),  # chunks of two taps, tiles of both groups' ends
    ConvProblem("pieces_s2", 2, 24, 9, 10, 40, 3, 3, (2, 2), (1, 1)),
    ConvProblem("pieces_dilated_s2", 1, 16, 13, 12, 24, 3, 3, (2, 3), (2, 1), (2, 3)),
    ConvProblem("pieces_coprime", 1, 16, 13, 12, 24, 3, 3, (3, 2), (2, 3), (2, 3)),  # the first tap strides away
    ConvProblem("pieces_dilated", 1, 32, 12, 9, 16, 3, 2, (1, 1), (3, 2), (3, 2)),
    ConvProblem("pieces_groups", 2, 48, 7, 8, 96, 3, 3, (1, 1), (1, 1), (1, 1), 3),
    ConvProblem("pieces_wide", 1, 136, 6, 7, 264, 1, 1),
    ConvProblem("many_pixels", 3, 8, 17, 23, 136, 1, 1, (1, 1)),
    ConvProblem("many_tiles", 3, 8, 53, 53, 16, 1, 1),  # more than a merge has segments; offsets of more than 16 bits
    ConvProblem("large_filter", 1, 8, 14, 15, 8, 11, 9, (2, 1), (5, 4)),
    ConvProblem("batch_1_deep", 1, 264, 5, 5, 72, 3, 3, (1, 1), (1, 1)),
    ConvProblem("unread", 2, 16, 9, 10, 24, 1, 1, (3, 2)),
    ConvProblem("results_alone", 2, 5, 7, 6, 16, 3, 3, (1, 1), (1, 1)),  # pieces of y, but none of x
)


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


def check_oracle(convolutions, case, dtype):
    """Errors against float64 by assert_oracle's bound."""
    ours, theirs = case.run(convolutions), case.run(reference)
    for i, (a, b, c) in enumerate(zip(ours, theirs, case.double().run(reference))):
        # Of few elements the largest rounding error is itself random: half an ulp of the result, which both round to.
        stored = rounded_terms(case, ours[0], c) if c.dim() == 2 else stored_rounding(dtype, c, 1)
        assert_oracle(a, b, c, case.length, f"result {i}", stored=stored)
