"""The CUDA kernels and their torch layer on a machine without a GPU: backend "cuda_emulated" for CPU tensors.

The launchers and the operators are the files that a GPU runs; the kernels are nvcc's PTX of them, run by tests/emulator.
"""

import functools
from pathlib import Path

import pytest
import torch
from emulator import build
from emulator.library import Emulated
from torch.utils import cpp_extension

from resnet_fused import backends

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
KERNELS = sorted(path for path in (CSRC / "cuda").glob("*.cu") if path.name != "build_facts.cu")
HOST = [HERE / "operators.cpp", CSRC / "torch" / "schemas.cpp", CSRC / "torch" / "cuda_conv.cpp", CSRC / "cuda" / "conv_unsupported.cpp"]
NVCC_FLAGS = ["-O3", "-fmad=false", "-lineinfo"]


@functools.cache
def load() -> Emulated:
    """Builds and loads the library, which registers torch.ops.resnet_fused_emulated."""
    torch_includes = [flag for path in cpp_extension.include_paths() for flag in ("-isystem", path)]
    torch_libraries = Path(torch.__file__).parent / "lib"
    path = build.library(
        "operators", KERNELS, HOST,
        nvcc_flags=NVCC_FLAGS,
        cxx_flags=["-std=c++20", "-O1", *torch_includes, "-isystem", str(build.cuda_include())],
        link_flags=[f"-L{torch_libraries}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch_libraries}"],
    )  # fmt: skip
    return Emulated(path)


class _Operators:
    """torch.ops.resnet_fused_emulated, built when the first of them is asked for."""

    def __getattr__(self, name):
        load()
        return getattr(torch.ops.resnet_fused_emulated, name)


backends.register("cuda_emulated", _Operators())

needs_emulator = pytest.mark.skipif(
    build.why_not() is not None, reason=f"the emulator cannot be built: {build.why_not()}"
)
BACKEND = pytest.param("cuda_emulated", marks=needs_emulator)
