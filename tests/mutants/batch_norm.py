"""Bugs in the kernels of batch norm and the additions around it."""

from .mutant import Mutant

BOTH = ("bn_statistics", "bn_backward")

STATISTICS_FILE = "bn_statistics.cuh"
STATISTICS = [
    Mutant("statistics-no-pivot", STATISTICS_FILE, "pivot.value[i] = mean - mean == A(0) ? mean : A(0);",
           "pivot.value[i] = A(0);", "E[x²] − E[x]²: cancels where the mean is large"),
    Mutant("statistics-pivot-of-thread", STATISTICS_FILE, "int64_t row = at.chunk * s.chunk_rows, segment",
           "int64_t row = at.row, segment", "pivot from the wrong row: each thread has its own"),
    Mutant("statistics-partial-stride", STATISTICS_FILE,
           "double* partial = p.partial + 2 * at.chunk * s.channels + channel;",
           "double* partial = p.partial + at.chunk * s.channels + channel;", "wrong stride between partials"),
    Mutant("statistics-channels-unmasked", STATISTICS_FILE, "    if (channel < s.channels) {\n", "    if (true) {\n",
           "unmasked tail channels in the partials"),
    Mutant("merge-last-count", STATISTICS_FILE, "end = min(begin + s.chunk_rows, s.rows);",
           "end = begin + s.chunk_rows;", "Chan's merge with a wrong count of the last chunk"),
    Mutant("merge-between-chunks", STATISTICS_FILE, "square += partial[s.channels] + weighted * d;",
           "square += partial[s.channels];", "Chan's merge without n_i (mean_i − mean)²"),
    Mutant("merge-barrier-first", STATISTICS_FILE, """\
  __syncthreads();
  if (threadIdx.x % kWarp < kMergeChannels) {
    memory[threadIdx.x / kWarp][channel] = value;
  }
""", """\
  if (threadIdx.x % kWarp < kMergeChannels) {
    memory[threadIdx.x / kWarp][channel] = value;
  }
""", "missing __syncthreads before shared memory is used again", ("bn_statistics",)),
    Mutant("merge-barrier-second", STATISTICS_FILE, """\
  if (threadIdx.x % kWarp < kMergeChannels) {
    memory[threadIdx.x / kWarp][channel] = value;
  }
  __syncthreads();
""", """\
  if (threadIdx.x % kWarp < kMergeChannels) {
    memory[threadIdx.x / kWarp][channel] = value;
  }
""", "missing __syncthreads between the slices' sums and their reading", ("bn_statistics",)),
    Mutant("merge-sums-barrier-first", STATISTICS_FILE, """\
  __syncthreads();
  if (threadIdx.x % kWarp < kMergeChannels) {
    memory[threadIdx.x / kWarp][channel] = value;
  }
""", """\
  if (threadIdx.x % kWarp < kMergeChannels) {
    memory[threadIdx.x / kWarp][channel] = value;
  }
""", "missing __syncthreads before shared memory is used again", ("bn_backward",)),
    Mutant("merge-sums-barrier-second", STATISTICS_FILE, """\
  if (threadIdx.x % kWarp < kMergeChannels) {
    memory[threadIdx.x / kWarp][channel] = value;
  }
  __syncthreads();
""", """\
  if (threadIdx.x % kWarp < kMergeChannels) {
    memory[threadIdx.x / kWarp][channel] = value;
  }
""", "missing __syncthreads between the slices' sums and their reading", ("bn_backward",)),
    Mutant("merge-lanes", STATISTICS_FILE, "int distance = kMergeChannels; distance < kWarp;",
           "int distance = 2 * kMergeChannels; distance < kWarp;", "half of a warp's slices are left out"),
    Mutant("merge-warps", STATISTICS_FILE, "for (int warp = 0; warp < kThreads / kWarp; ++warp) {",
           "for (int warp = 1; warp < kThreads / kWarp; ++warp) {", "the first warp's slices are left out"),
    Mutant("merge-pivot", STATISTICS_FILE, "stats[channel] = static_cast<A>(q + mean);",
           "stats[channel] = static_cast<A>(mean);", "the mean without what it is relative to"),
    Mutant("merge-pivot-infinite", STATISTICS_FILE, "  q = q - q == 0.0 ? q : 0.0;  // not infinity\n", "",
           "a mean of infinity becomes NaN"),
    Mutant("merge-blocks-floor", "bn_statistics.cu", "ceil_div(p.shape.channels, kMergeChannels)",
           "p.shape.channels / kMergeChannels", "the last channels are not merged"),
    Mutant("statistics-pivot-rows", STATISTICS_FILE,
           "min(int64_t{kPivotRows}, kChannelsLast ? at.end - row : s.pixels - segment * s.length);",
           "int64_t{kPivotRows};", "the pivot's rows are more than there are"),
    Mutant("finalize-count", STATISTICS_FILE, "/ p.count + p.eps);", "/ (p.count - 1) + p.eps);",
           "the unbiased variance"),
    Mutant("finalize-eps", STATISTICS_FILE, "1 / sqrt(static_cast<double>(m2[c]) / p.count + p.eps);",
           "1 / (sqrt(static_cast<double>(m2[c]) / p.count) + p.eps);", "eps outside of the root"),
    Mutant("finalize-tail", STATISTICS_FILE, "  if (c >= p.channels) {\n", "  if (c > p.channels) {\n",
           "`>` for `>=`: a channel too many"),
    Mutant("finalize-scale", STATISTICS_FILE, "static_cast<const A*>(p.weight)[c] * invstd : invstd",
           "static_cast<const A*>(p.weight)[c] : invstd", "the scale is the weight"),
]  # fmt: skip

APPLY_FILE = "bn_apply.cuh"
APPLY = [
    Mutant("apply-relu-first", APPLY_FILE, """\
      if (residual) {
        A r = to_acc(loaded.residual[i]);
        value += affine_residual ? residual_affine(r, i) : r;
      }
      values[i] = relu ? zero_up_to_zero(value, value) : value;
""", """\
      value = relu ? zero_up_to_zero(value, value) : value;
      if (residual) {
        A r = to_acc(loaded.residual[i]);
        value += affine_residual ? residual_affine(r, i) : r;
      }
      values[i] = value;
""", "ReLU before the residual"),
    Mutant("apply-residual-affine-ignored", APPLY_FILE, "value += affine_residual ? residual_affine(r, i) : r;",
           "value += r;", "the residual's affine is ignored"),
    Mutant("apply-residual-affine-of-x", APPLY_FILE,
           "residual_affine = Affine<A, kCount>(p.residual_affine, p.sweep, at);",
           "residual_affine = Affine<A, kCount>(p.affine, p.sweep, at);", "the residual by x's affine"),
    Mutant("apply-residual-affine-alignment", "bn_apply.cu", "{p.x, p.affine, p.residual, p.residual_affine, p.y}",
           "{p.x, p.affine, p.residual, p.y}", "vectors although the residual's affine is misaligned"),
    Mutant("apply-bits-stop-nan", APPLY_FILE, "passed |= (to_acc(packed[i]) <= A(0) ? 0u : 1u) << i;",
           "passed |= (to_acc(packed[i]) > A(0) ? 1u : 0u) << i;", "the mask stops NaN"),
    Mutant("apply-bits-of-one-lane", "sweep.cuh", "distance < kLanes; distance *= 2", "distance < 1; distance *= 2",
           "a byte has the bits of its first lane alone", ("bn_apply",)),
    Mutant("apply-bits-not-shifted", "sweep.cuh", "  bits <<= offset % kMaskBits;\n", "",
           "all lanes of a byte set its lowest bits", ("bn_apply",)),
    Mutant("add-mask-of-grad", APPLY_FILE, "g = out ? zero_up_to_zero(to_acc(loaded.out[i]), g) : g;",
           "g = out ? zero_up_to_zero(g, g) : g;", "the gradient masks itself"),
    Mutant("add-base-ignored", APPLY_FILE, "values[i] = base ? to_acc(loaded.base[i]) + g : g;", "values[i] = g;",
           "what is added to is ignored"),
    Mutant("add-out-alignment", "bn_apply.cu", "{p.base, p.grad, p.out, p.y}", "{p.base, p.grad, p.y}",
           "vectors although the mask is misaligned"),
]  # fmt: skip

BACKWARD_FILE = "bn_backward.cuh"
BACKWARD = [
    Mutant("reduce-mask-of-out-ignored", BACKWARD_FILE, """\
        g = zero_up_to_zero(to_acc(loaded.out[i]), g);
      }
      if (x) {
""", """\
      }
      if (x) {
""", "ReLU's mask from its output is ignored"),
    Mutant("reduce-rows-of-partial", BACKWARD_FILE, "int rows = p.x2 ? 3 : p.x ? 2 : 1;", "int rows = p.x ? 2 : 1;",
           "x2's row is missing: wrong stride between partials"),
    Mutant("reduce-wrong-sum", BACKWARD_FILE, "reduce_block<N, kChannelsLast>(s, body.product2, memory, put);",
           "reduce_block<N, kChannelsLast>(s, body.product, memory, put);", "x's sum in x2's row"),
    Mutant("reduce-row-not-advanced", BACKWARD_FILE, """\
    partial += s.channels;
    reduce_block<N, kChannelsLast>(s, body.product2""", """\
    reduce_block<N, kChannelsLast>(s, body.product2""", "x2's sum in x's row"),
    Mutant("reduce-channels-inclusive", BACKWARD_FILE, "    if (first + i < s.channels) {\n",
           "    if (first + i <= s.channels) {\n", "`<=` for `<`: a channel too many in the partials"),
    Mutant("reduce-workspace", "bn_backward.cu", "plan_sweep(p.shape, access_of(dtype, p)).chunks * rows_of(p)",
           "(plan_sweep(p.shape, access_of(dtype, p)).chunks * rows_of(p) - 1)", "workspace a row too small"),
    Mutant("reduce-x2-alignment", "bn_backward.cu", "p.x, p.affine, p.x2, p.affine2, p.operand, p.masked});",
           "p.x, p.affine, p.affine2, p.operand, p.masked});", "vectors although x2 is misaligned"),
    Mutant("reduce-masked-unmasked", BACKWARD_FILE, "gradients[i] = g;", "gradients[i] = to_acc(loaded.grad[i]);",
           "the masked gradient is not"),
    Mutant("reduce-bits-not-shifted", "sweep.cuh", "(N < kMaskBits ? offset % kMaskBits : 0)", "0",
           "all elements of a byte have its lowest bits", ("bn_backward",)),
    Mutant("reduce-bits-order", BACKWARD_FILE, "loaded.bits >> i & 1", "loaded.bits >> (N - 1 - i) & 1",
           "a byte's bits in reverse order"),
    Mutant("reduce-bits-inverted", BACKWARD_FILE, "loaded.bits >> i & 1 ? g : A(0)", "loaded.bits >> i & 1 ? A(0) : g",
           "what passes is stopped"),
    Mutant("merge-sums-affine", BACKWARD_FILE, "row == 2 ? p.affine2 : p.affine", "p.affine",
           "x2's sum times x's invstd"),
    Mutant("merge-sums-slices", BACKWARD_FILE, "i < p.chunks; i += kMergeSlices", "i < kMergeSlices; i += kMergeSlices",
           "chunks after the first round of slices are left out"),
    Mutant("draw-slope", BACKWARD_FILE, "      slope.value[i] *= invstd.value[i];\n", "",
           "means not multiplied by invstd"),
    Mutant("draw-sign", BACKWARD_FILE, "multiply_add(-slope[i],", "multiply_add(slope[i],",
           "sign of the second mean's term"),
    Mutant("draw-means-row", BACKWARD_FILE, "slope(static_cast<const A*>(means) + s.channels, s, at)",
           "slope(static_cast<const A*>(means), s, at)", "the first row of means for the second"),
    Mutant("draw-means-alignment", "bn_backward.cu", "{p.grad, p.out, p.x, p.affine, p.means, p.draw}",
           "{p.grad, p.out, p.x, p.affine, p.draw}", "vectors although the means are misaligned"),
]  # fmt: skip

VECTORS_FILE = "bn_vectors.cuh"
VECTORS = [
    Mutant("sums-finalize-rows", VECTORS_FILE, "static_cast<A>(gx / count);", "static_cast<A>(g / count);",
           "the first sum's mean for the second's"),
    Mutant("sums-finalize-gradients", VECTORS_FILE, "p.dweight, c, gx);", "p.dweight, c, g);",
           "the shift's gradient for the scale's"),
    Mutant("sums-finalize-dtype", VECTORS_FILE, "store_element(p.bias_dtype,", "store_element(p.weight_dtype,",
           "the shift's gradient in the scale's dtype"),
    Mutant("sums-finalize-tail", VECTORS_FILE, "  if (c >= p.channels) {\n", "  if (c > p.channels) {\n",
           "`>` for `>=`: a channel too many"),
    Mutant("update-momentum", VECTORS_FILE, "kept * load_element(n.mean_dtype, n.mean, c) + n.momentum * mean",
           "n.momentum * load_element(n.mean_dtype, n.mean, c) + kept * mean", "the momentum is the running mean's"),
    Mutant("update-degrees", VECTORS_FILE, "static_cast<double>(n.count - 1);", "static_cast<double>(n.count);",
           "the biased variance"),
    Mutant("update-channels", VECTORS_FILE, "c < n.channels; c += kThreads", "c < n.channels; c += n.channels",
           "channels after the first round of threads are left out"),
    Mutant("update-dtype", VECTORS_FILE, "load_element(n.var_dtype, n.var, c)", "load_element(n.mean_dtype, n.var, c)",
           "the running variance in the mean's dtype"),
    Mutant("update-counter-threads", VECTORS_FILE, "if (i < p.counters && threadIdx.x == 0) {",
           "if (i < p.counters) {", "every thread counts"),
    Mutant("update-counter-norms", VECTORS_FILE, "if (i < p.counters && threadIdx.x == 0) {",
           "if (i < p.norms && threadIdx.x == 0) {", "counters without a batch norm are left out"),
    Mutant("update-grid", "bn_vectors.cu", "std::max(p.norms, p.counters)", "p.norms",
           "no block for counters without a batch norm"),
]  # fmt: skip

MUTANTS = [*STATISTICS, *APPLY, *BACKWARD, *VECTORS]
