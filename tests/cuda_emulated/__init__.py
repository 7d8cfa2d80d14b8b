"""The CUDA kernels and their torch layer on a machine without a GPU: backend "cuda_emulated" for CPU tensors.

The launchers and the operators are the files that a GPU runs; the kernels are nvcc's PTX of them, run by
tests/emulator.
"""

import functools
from pathlib import Path

import pytest
import torch
from emulator import build
from emulator.library import Emulated
from package_build import nvcc_flags

from resnet_fused import backends

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
KERNELS = sorted(path for path in (CSRC / "cuda").glob("*.cu") if path.name != "build_facts.cu")
HOST = [
    HERE / "operators.cpp",
    CSRC / "torch" / "schemas.cpp",
    CSRC / "torch" / "cuda_conv.cpp",
    CSRC / "cuda" / "conv_unsupported.cpp",
]


def build_library(sources=KERNELS, name="operators", guarded=False, edit_ptx=None) -> Path:
    """The operators' library, of KERNELS or of copies with ../common beside them.

    `guarded`: with redzones around all tensors of the process that loads it, workspaces included.
    """
    includes, link_flags = build.torch_flags()
    host = HOST + [build.TORCH_ALLOCATOR] * guarded
    return build.library(
        name, sources, host, nvcc_flags=nvcc_flags(),
        cxx_flags=["-std=c++20", "-O1", *includes, "-isystem", str(build.cuda_include())],
        link_flags=link_flags, edit_ptx=edit_ptx,
    )  # fmt: skip


@functools.cache
def load() -> Emulated:
    """Builds and loads the library, which registers torch.ops.resnet_fused_emulated."""
    return Emulated(build_library())


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
