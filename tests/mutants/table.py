"""All seeded bugs."""

from . import batch_norm, ptx, shared, stem

MUTANTS = [*shared.MUTANTS, *batch_norm.MUTANTS, *stem.MUTANTS, *ptx.MUTANTS]
