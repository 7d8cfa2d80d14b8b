"""All seeded bugs."""

from . import batch_norm, convolution, convolution_results, convolution_sm90, ptx, shared, stem

MUTANTS = [
    *shared.MUTANTS,
    *batch_norm.MUTANTS,
    *stem.MUTANTS,
    *convolution.MUTANTS,
    *convolution_sm90.MUTANTS,
    *convolution_results.MUTANTS,
    *ptx.MUTANTS,
]
