"""The device that these tests run on: a GPU; or the emulator, where benchmarks/gpu_check rehearses without one."""

import os
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
for folder in (HERE.parent / "backends", HERE.parent / "autograd"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic algorithms ask for
EMULATED = os.environ.get("RESNET_FUSED_GPU_TESTS") == "cuda_emulated"


class Moved:
    """Operators whose arguments go to the device and whose results come back, so that the CPU can judge them."""

    def __init__(self, operators, device) -> None:
        self._operators, self._device = operators, device

    def __getattr__(self, name):
        operator = getattr(self._operators, name)

        def call(*arguments):
            results = operator(*(self._there(argument) for argument in arguments))
            return tuple(map(self._back, results)) if isinstance(results, tuple) else self._back(results)

        return call

    def _there(self, argument):
        if isinstance(argument, list):
            return [self._there(item) for item in argument]
        return argument.to(self._device) if isinstance(argument, torch.Tensor) else argument

    def _back(self, result):
        return result.cpu() if isinstance(result, torch.Tensor) else result


class Gpu:
    def __init__(self, device: str, backend: str, operators) -> None:
        self.device, self.backend, self.operators = torch.device(device), backend, operators
        self.kernels = Moved(operators, self.device)

    def on(self, index: int) -> Moved:
        """The operators on another device of the machine."""
        return Moved(self.operators, torch.device(self.device.type, index))


def why_not() -> str | None:
    if EMULATED:
        return None
    if not torch.cuda.is_available():
        return "no CUDA device here"
    from resnet_fused import backends

    return backends.available()["cuda"]


@pytest.fixture(scope="session")
def gpu():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    if not EMULATED:
        return Gpu("cuda", "cuda", torch.ops.resnet_fused)
    import cuda_emulated

    import resnet_fused

    cuda_emulated.load()
    resnet_fused.backends.register("cuda_emulated", torch.ops.resnet_fused_emulated)
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
