"""What runs under compute-sanitizer: every operator of ours once per dtype and format, on shapes of a few tiles.

Nothing is compared: tests/gpu does that, without a tool that makes each call a hundred times slower.
"""

from __future__ import annotations

import os

import torch
from operator_cases import DTYPES, FORMATS, MODES, make_case
from problems import ConvProblem

from .device import open_device
from .plan import EMULATED, Settings

KERNELS = [mode for mode in MODES if not mode.startswith(("fprop", "dgrad", "wgrad", "backward", "chain"))]
KERNELS += ["backward_apply", "backward_apply_relu", "backward_apply_out", "backward_add_masked"]
SHAPES = [ConvProblem("one_tile", 2, 16, 8, 8, 16, 1, 1), ConvProblem("ragged", 3, 37, 7, 9, 37, 1, 1)]


def main() -> None:
    settings = Settings() if os.environ.get("GPU_CHECK_DEVICE") == "cuda" else EMULATED
    device = open_device(settings)
    for shape in SHAPES:
        for dtype in ("float32", "float16"):
            for layout in FORMATS.values():
                for mode in KERNELS:
                    case = make_case(mode, shape, DTYPES[dtype], layout).mapped(lambda t: t.to(device.torch))
                    case.run(device.operators)
    if device.torch.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
