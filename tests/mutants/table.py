"""All seeded bugs."""

from . import batch_norm, convolution, convolution_results, ptx, shared, stem

MUTANTS = [
    *shared.MUTANTS,
    *batch_norm.MUTANTS,
    *stem.MUTANTS,
    *convolution.MUTANTS,
    *convolution_results.MUTANTS,
    *ptx.MUTANTS,
]
