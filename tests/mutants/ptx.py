"""Bugs in the PTX, as a compiler would make them. Kernels are named by a part of their mangled names."""

from .mutant import PtxMutant
from .target import CONV

BARRIER = r"\bbar\.sync\s+0;"
BRANCH = r"@(%p\d+) bra"  # the first of each kernel chooses how 64-bit numbers are divided, and either way is right

MMA = r"(mma\.sync\S+\s+\{[^}]*\}, )\{(%r\d+), (%r\d+), (%r\d+), (%r\d+)\}, \{(%r\d+), (%r\d+)\}"

CONVOLUTIONS = [
    PtxMutant("ptx-conv-wait", "conv_fprop", "conv_fprop_kernel", r"cp\.async\.wait_group 1;", 1,
              "cp.async.wait_group 2;", "one group of copies too few is waited for", CONV),
    PtxMutant("ptx-conv-barrier", "conv_wgrad", "conv_wgrad_kernel", BARRIER, 0, "",
              "a barrier removed from the main loop", CONV),
    PtxMutant("ptx-conv-mma-a", "conv_dgrad", "conv_dgrad_kernel", MMA, 5, r"\1{\4, \3, \2, \5}, {\6, \7}",
              "a fragment's registers swapped", CONV),
    PtxMutant("ptx-conv-mma-b", "conv_wgrad", "conv_wgrad_kernel", MMA, 5, r"\1{\2, \3, \4, \5}, {\7, \6}",
              "a fragment's registers swapped", CONV),
    PtxMutant("ptx-conv-ldmatrix", "conv_wgrad", "conv_wgrad_kernel", r"x4\.trans\.shared", 2, "x4.shared",
              "one operand is not transposed", CONV),
    PtxMutant("ptx-conv-copy-bytes", "conv_dgrad", "conv_dgrad_kernel",
              r"(cp\.async\.cg\.shared\.global \[%r\d+\], \[%rd\d+\], 16), %r\d+;", 3, r"\1, 16;",
              "a copy that ignores whether there is anything", CONV),
    PtxMutant("ptx-conv-commit", "conv_fprop", "conv_fprop_kernel", r"cp\.async\.commit_group;", 1, "",
              "a group of copies that is never closed", CONV),
    PtxMutant("ptx-conv-store", "conv_dgrad", "conv_dgrad_kernel", r"st\.shared\.v4\.\w+\s+\[[^;]*;", 0, "",
              "a store removed", CONV),
]  # fmt: skip

MUTANTS = [
    *CONVOLUTIONS,
    PtxMutant("ptx-statistics-barrier-between", "bn_statistics", "bn_statistics_kernelIfLi4ELb0E", BARRIER, 1, "",
              "a barrier removed: shared memory is used again too early"),
    PtxMutant("ptx-merge-sums-barrier", "bn_backward", "merge_sums_kernelIfE", BARRIER, 1, "",
              "a barrier removed: slices are read before they are written"),
    PtxMutant("ptx-apply-predicate", "bn_apply", "bn_apply_kernelIfLi4ELb1E", BRANCH, 8, r"@!\1 bra",
              "a predicate negated"),
    PtxMutant("ptx-pool-predicate", "stem_pool", "stem_pool_kernelIfLi4ELb1E", BRANCH, 4, r"@!\1 bra",
              "a predicate negated"),
    PtxMutant("ptx-apply-operands", "bn_apply", "bn_apply_kernelIfLi4ELb1E",
              r"(fma\.rn\.f32\s+%\w+), (%\w+), (%\w+), (%\w+);", 0, r"\1, \4, \3, \2;", "an operand register swapped"),
]  # fmt: skip
