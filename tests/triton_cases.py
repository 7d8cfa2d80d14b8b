"""What the Triton operators are tested on: few shapes, since each has kernels compiled for it."""

from operator_cases import MODES
from problems import ConvProblem

KERNELS = [mode for mode in MODES if not mode.startswith(("fprop", "dgrad", "wgrad", "backward", "chain"))]
KERNELS += ["backward_apply", "backward_apply_relu", "backward_apply_out"]
EXACT = [mode for mode in KERNELS if not mode.startswith(("statistics", "finalize"))]
CONVOLUTIONS = ["fprop_residual_affine", "fprop_prologue", "backward_masked", "backward_everything", "dgrad", "wgrad",
                "chain_projection", "chain_identity"]  # fmt: skip


def pointwise(N, C, H, W) -> ConvProblem:
    return ConvProblem(f"{N}x{C}x{H}x{W}", N, C, H, W, C, 1, 1)


VECTORS = pointwise(2, 80, 8, 8)  # whole vectors; channels last two tiles side by side, the second not full
ODD = pointwise(3, 5, 7, 9)  # single elements, no tile full
