"""The operators, one set of names and signatures for every backend: `ops.get("cpu").bn_apply(...)`.

Activations are logical NCHW, physically channels_last or contiguous. The accumulation dtype (acc) is float64 for
float64 activations, else float32. A batch norm is one acc tensor, and so are its partial results:

    affine [4, C]   rows mean, scale = weight/std, shift = bias, invstd = 1/std
    stats  [2, C]   rows mean, M2 = sum of squared deviations from it
    sums   [2, C]   rows sum g, sum g·x̂, with x̂ = (x − mean)·invstd;  means = sums / (N·P·Q)

and z(x) = (x − mean)·scale + shift throughout (batch norm: Ioffe & Szegedy 2015, algorithm 1).

bn_statistics(x) → stats
bn_finalize(stats, count, weight, bias, eps) → affine
bn_apply(x, affine, relu, residual, residual_affine) → [relu](z(x) + residual or its z)
bn_apply_mask(x, affine, residual, residual_affine) → y, mask
    y = relu(z(x) + residual or its z), and of it where not (y <= 0), as bits (backends/relu_mask.py); [0] where y's
    elements do not fill bytes, and on a CPU, where reading y instead takes no longer
bn_backward_reduce(grad, out, x, affine, relu, x2, affine2) → sums
    g = grad where not (out <= 0), or where not (z(x) <= 0) when out is None; a third row for a second batch norm
    that receives the same g; without x only the row sum g
bn_backward_mask_reduce(grad, out, x, affine, x2, affine2, mask) → g, sums
    g = grad where not (out <= 0), stored for several readers, with bn_backward_reduce's sums of it; out's mask, where
    it is in x's order, is read in its place, and out may be None then
bn_backward_apply(grad, out, x, affine, relu, means) → scale·(g − means[0] − x̂·means[1])
bn_backward_finalize(sums, count, weight, bias) → means, dweight, dbias
    means = sums / count; the gradients are rows of sums in their parameters' dtypes, [0] for a parameter not given
bn_update_running(stats, counts, momenta, running_mean, running_var, counters), all of them lists, in place
    running ← (1 − momentum)·running + momentum·batch, with the unbiased variance M2 / (count − 1), for each of stats;
    counters ← counters + 1, as many as are given
conv_fprop(x, weight, stride, padding, dilation, groups, prologue, prologue_relu, statistics, epilogue, residual,
           residual_affine, relu) → y, stats
    convolves z(x) by the prologue (padding is zero after it); statistics of y, or bn_apply by the epilogue
conv_backward(grad, out, raw, affine, means, relu, x, weight, …, prologue, prologue_relu, reduce, add, add_out,
              output_mask, sum_raw, sum_affine, sum_raw2, sum_affine2) → dx, dw, sums
    the convolution's output gradient is bn_backward_apply(grad, out, raw, …), or the masked grad without raw;
    dx is not yet masked by x's own ReLU (its consumer does that), plus `add` where not (add_out <= 0);
    reduce: bn_backward_reduce(dx, None, x, prologue, prologue_relu)
    or, with sum_raw, where x = relu(z(sum_raw) + z(sum_raw2) or another term), masked by x after all:
    dx, sums = bn_backward_mask_reduce(dx, x, sum_raw, sum_affine, sum_raw2, sum_affine2)
conv_dgrad(…) → dx, sums;  conv_wgrad(…) → dw: conv_backward's halves
frozen_chains(x, weights, norms, eps, geometry, chains) → out
    one after another relu(z_n(conv_n(… relu(z_1(conv_1(x))))) + shortcut) with running statistics in one call: per
    convolution, a chain's projection last, norms holds weight, bias, running mean and variance; geometry stride,
    padding, dilation (two each), groups and whether ReLU follows; chains, per chain, n, whether there is a projection
    (0 or 1), and whether the chain's input is added
stem_pool(x, affine) → y, index: 3×3/2 max pool of relu(z(x)); index: winner's position 0…8, 255 where the maximum is 0
stem_pool_backward_reduce(grad, index, x, affine) → sums
stem_pool_backward_apply(grad, index, input_size, x, affine, means) → gradient of x, or of z(x) without x
"""

from resnet_fused import _ext
from resnet_fused.backends import get
from resnet_fused.ops import fake
from resnet_fused.ops.fake import output_extent

__all__ = ["get", "output_extent"]

fake.register("resnet_fused_triton")
if _ext.cpu_unavailable_reason() is None:
    fake.register("resnet_fused", compiled=True)
    fake.register("resnet_fused_library", compiled=True)
