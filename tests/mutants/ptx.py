"""Bugs in the PTX, as a compiler would make them. Kernels are named by a part of their mangled names."""

from .mutant import PtxMutant

BARRIER = r"\bbar\.sync\s+0;"
BRANCH = r"@(%p\d+) bra"  # the first of each kernel chooses how 64-bit numbers are divided, and either way is right

MUTANTS = [
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
