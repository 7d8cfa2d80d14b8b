"""Builds resnet_fused._cpu, and resnet_fused._cuda where an nvcc of torch's CUDA version is found.

    RESNET_FUSED_CUDA=auto|0|1   build the CUDA extension if possible (default), never, or fail without it
    TORCH_CUDA_ARCH_LIST         its architectures, default 8.0+PTX;9.0a (without 9.0a Hopper runs Ampere's convolutions)
    MAX_JOBS                     compilers at a time, default 2

The build uses the torch that is installed (`pip install --no-build-isolation .`) and downloads nothing.
"""

import os
import re
import subprocess
from pathlib import Path

import torch
from setuptools import setup
from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parent

# -ffp-contract=off: fused multiply-adds are written out where they are wanted, so that forward and backward round alike.
# -fopenmp when compiling only: linking to libgomp could bring a second one beside torch's own.
CXX_FLAGS = ["-O3", "-g0", "-Wall", "-fopenmp", "-ffp-contract=off", "-fvisibility=hidden"]

NVCC_FLAGS = ["-O3", "-fmad=false"]  # multiply-adds as above

CPU_SOURCES = [
    "csrc/cpu/bn.cpp",
    "csrc/cpu/caches.cpp",
    "csrc/cpu/conv.cpp",
    "csrc/cpu/conv_depthwise.cpp",
    "csrc/cpu/conv_direct.cpp",
    "csrc/cpu/conv_grid.cpp",
    "csrc/cpu/conv_plan.cpp",
    "csrc/cpu/conv_wgrad.cpp",
    "csrc/cpu/isa.cpp",
    "csrc/cpu/isa_avx2.cpp",
    "csrc/cpu/isa_avx512.cpp",
    "csrc/cpu/isa_portable.cpp",
    "csrc/cpu/plan.cpp",
    "csrc/cpu/stem.cpp",
    "csrc/cpu/winograd.cpp",
    "csrc/torch/conv_engine.cpp",
    "csrc/torch/cpu_impl.cpp",
    "csrc/torch/cpu_module.cpp",
    "csrc/torch/library.cpp",
    "csrc/torch/parallel.cpp",
    "csrc/torch/schemas.cpp",
    "csrc/torch/allocator.cpp",
    "csrc/torch/weight_cache.cpp",
]
CUDA_SOURCES = [
    "csrc/cuda/bn_apply.cu",
    "csrc/cuda/bn_backward.cu",
    "csrc/cuda/bn_statistics.cu",
    "csrc/cuda/bn_vectors.cu",
    "csrc/cuda/build_facts.cu",
    "csrc/cuda/conv_dgrad.cu",
    "csrc/cuda/conv_dgrad_sm90.cu",
    "csrc/cuda/conv_fprop.cu",
    "csrc/cuda/conv_fprop_sm90.cu",
    "csrc/cuda/conv_merge.cu",
    "csrc/cuda/conv_unsupported.cpp",
    "csrc/cuda/conv_wgrad.cu",
    "csrc/cuda/conv_wgrad_sm90.cu",
    "csrc/cuda/stem_pool.cu",
    "csrc/torch/cuda_context.cpp",
    "csrc/torch/cuda_conv.cpp",
    "csrc/torch/cuda_impl.cpp",
    "csrc/torch/cuda_module.cpp",
]


def ask_nvcc(cuda_home, *arguments, pattern):
    """What `pattern` captures in nvcc's answer, or None."""
    try:
        answer = subprocess.run([Path(cuda_home, "bin", "nvcc"), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(pattern, answer.stdout + answer.stderr)
    return found and found.group(1).strip()


def find_toolkit():
    """Corrects CUDA_HOME, guessed from where nvcc is on PATH, if that is a wrapper outside of the toolkit."""
    home = cpp_extension.CUDA_HOME
    if home and not Path(home, "include", "cuda_runtime.h").exists():
        top = ask_nvcc(home, "--dryrun", "-x", "cu", "-c", os.devnull, pattern=r"TOP=(.*)")
        cpp_extension.CUDA_HOME = os.path.realpath(top) if top else home


def why_no_cuda():
    """Why the CUDA extension cannot be built here, or None."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if cpp_extension.CUDA_HOME is None:
        return "no nvcc was found (set CUDA_HOME)"
    find_toolkit()
    version = ask_nvcc(cpp_extension.CUDA_HOME, "--version", pattern=r"release (\d+\.\d+)")
    if version is None:
        return f"{cpp_extension.CUDA_HOME}/bin/nvcc does not run"
    if version.split(".")[0] != torch.version.cuda.split(".")[0]:
        return f"nvcc is {version} but torch {torch.__version__} is built for CUDA {torch.version.cuda}"
    return None


def wants_cuda():
    choice = os.environ.get("RESNET_FUSED_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"RESNET_FUSED_CUDA must be auto, 0 or 1, but got {choice!r}")
    if choice == "0":
        return False
    reason = why_no_cuda()
    if reason and choice == "1":
        raise SystemExit(f"RESNET_FUSED_CUDA=1, but the CUDA extension cannot be built: {reason}")
    if reason:
        print(f"resnet_fused: building without the CUDA extension: {reason}")
    return reason is None


def extensions():
    macros = [
        ("RESNET_FUSED_TORCH_VERSION", f'"{torch.__version__}"'),
        ("RESNET_FUSED_FLAGS", f'"{" ".join(CXX_FLAGS)}"'),
    ]
    yield cpp_extension.CppExtension(
        "resnet_fused._cpu", CPU_SOURCES, define_macros=macros, extra_compile_args={"cxx": CXX_FLAGS}
    )
    if wants_cuda():
        newest = "8.0+PTX;9.0a" if int(torch.version.cuda.split(".")[0]) >= 12 else "8.0+PTX"  # nvcc 11 has no 9.0a
        architectures = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", newest)
        cuda_macros = [("RESNET_FUSED_SM90A", None)] if "9.0a" in architectures else []
        yield cpp_extension.CUDAExtension(
            "resnet_fused._cuda",
            CUDA_SOURCES,
            define_macros=macros[:1] + cuda_macros,
            extra_compile_args={"cxx": CXX_FLAGS, "nvcc": NVCC_FLAGS},
        )


class BuildExtension(cpp_extension.BuildExtension):
    def finalize_options(self):
        super().finalize_options()
        # pip's own would be a new folder each time, in which ninja finds nothing up to date.
        self.build_temp = os.path.join("build", "temp")

    def run(self):
        # What is not built now is not left from before: it was built for another torch or from other sources.
        names = {extension.name.rpartition(".")[2] for extension in self.extensions}
        folder = Path(self.get_ext_fullpath("resnet_fused._cpu")).parent
        for name in {"_cpu", "_cuda"} - names:
            for stale in (*folder.glob(f"{name}.*.so"), folder / f"{name}.torch-version"):
                stale.unlink(missing_ok=True)
        super().run()
        # Read before the library is loaded: one built for another torch can crash in loading.
        for extension in self.extensions:
            library = Path(self.get_ext_fullpath(extension.name))
            name = extension.name.rpartition(".")[2]
            library.with_name(f"{name}.torch-version").write_text(torch.__version__ + "\n")


os.environ.setdefault("MAX_JOBS", "2")
os.chdir(ROOT)
setup(ext_modules=list(extensions()), cmdclass={"build_ext": BuildExtension})
