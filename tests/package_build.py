"""How setup.py and torch compile the package's CUDA kernels."""

import ast

from build_cache import ROOT


def setup_list(name: str) -> list[str]:
    """A list that setup.py assigns, read and not run: running it builds the package."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"setup.py does not assign {name}")


def nvcc_flags() -> list[str]:
    """setup.py's, those that torch adds for every extension, and lines for messages."""
    from torch.utils.cpp_extension import COMMON_NVCC_FLAGS

    return [*setup_list("NVCC_FLAGS"), *COMMON_NVCC_FLAGS, "-lineinfo"]
