"""The device that these tests run on: a GPU; or the emulator, where benchmarks/gpu_check rehearses without one."""

import os
import sys
from pathlib import Path

import pytest
import torch
from on_device import BACKEND, EMULATED, Gpu, why_not

HERE = Path(__file__).resolve().parent
for folder in (HERE.parent / "backends", HERE.parent / "autograd"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic algorithms ask for


@pytest.fixture(scope="session")
def gpu():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    from resnet_fused import backends

    if not EMULATED:
        return Gpu("cuda", BACKEND, backends.get(BACKEND))
    import cuda_emulated

    cuda_emulated.load()
    backends.register("cuda_emulated", torch.ops.resnet_fused_emulated)
    return Gpu("cpu", "cuda_emulated", torch.ops.resnet_fused_emulated)


@pytest.fixture
def cuda(gpu):
    """A real device: the emulator has one stream and no graphs."""
    if gpu.device.type != "cuda":
        pytest.skip("the emulator has no streams, graphs or second device")
    return gpu


@pytest.fixture(autouse=True)
def _full_precision():
    """Bounds are those of float32 sums: no TF32, no sums in 16 bits; and cuDNN's results are the same every time."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    chosen = {(matmul, "allow_tf32"): False, (cudnn, "allow_tf32"): False, (cudnn, "deterministic"): True,
              (matmul, "allow_fp16_reduced_precision_reduction"): False,
              (matmul, "allow_bf16_reduced_precision_reduction"): False}  # fmt: skip
    before = [(owner, name, getattr(owner, name)) for owner, name in chosen]
    for (owner, name), value in chosen.items():
        setattr(owner, name, value)
    yield
    for owner, name, value in before:
        setattr(owner, name, value)
